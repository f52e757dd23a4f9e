package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// onTerminal carries out a command line on a pseudo-terminal, and returns what came there and the exit status.
func onTerminal(t *testing.T, args ...string) (string, int) {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	fd := int(control.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string)
	go func() {
		text, _ := io.ReadAll(control) // EIO is the end
		said <- string(text)
	}()
	status := command(t.Context(), args, terminal, io.Discard)
	terminal.Close()
	return <-said, status
}

// TestColours: on a terminal, and nowhere else, the state has a colour, if the user does not object; in JSON it has none.
func TestColours(t *testing.T) {
	s, root := newSigner(t), t.TempDir()
	for uid, age := range map[string]string{"u1": "0s", "u2": "55m", "u3": "61m"} {
		if err := s.publish(root, uid, "v", "token", "age="+age); err != nil {
			t.Fatal(err)
		}
	}
	table := []string{"inspect", "--root-dir", root}
	for _, c := range []struct {
		noColour string
		args     []string
		want     string // nothing else has an escape
	}{
		{"", nil, "\x1b\\[31mexpired\x1b\\[0m\r\n[^\x1b]*\x1b\\[33mstale\x1b\\[0m\r\n[^\x1b]*\x1b\\[32mfresh\x1b\\[0m"},
		{"1", nil, " expired\r\n[^\x1b]* stale\r\n[^\x1b]* fresh"},
		{"", []string{"-o", "json"}, "expired[^\x1b]*fresh[^\x1b]*"},
	} {
		t.Setenv("NO_COLOR", c.noColour)
		text, status := onTerminal(t, append(table, c.args...)...)
		if !regexp.MustCompile("^[^\x1b]*"+c.want+"\\s*$").MatchString(text) || status != 1 {
			t.Errorf("%v, NO_COLOR=%s: exit status %d, %q", c.args, c.noColour, status, text)
		}
	}
	var stdout bytes.Buffer
	if command(t.Context(), table, &stdout, io.Discard); bytes.Contains(stdout.Bytes(), []byte("\x1b")) || !bytes.Contains(stdout.Bytes(), []byte(" fresh\n")) {
		t.Errorf("beside a terminal: %q", stdout.String())
	}
}
