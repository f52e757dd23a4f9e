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

// onTerminal has something write to a pseudo-terminal, and returns what came there.
func onTerminal(t *testing.T, write func(terminal *os.File)) string {
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
	write(terminal)
	terminal.Close()
	return <-said
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
		var status int
		text := onTerminal(t, func(terminal *os.File) { status = command(t.Context(), append(table, c.args...), terminal, io.Discard) })
		if !regexp.MustCompile("^[^\x1b]*"+c.want+"\\s*$").MatchString(text) || status != 1 {
			t.Errorf("%v, NO_COLOR=%s: exit status %d, %q", c.args, c.noColour, status, text)
		}
	}
	var stdout bytes.Buffer
	if command(t.Context(), table, &stdout, io.Discard); bytes.Contains(stdout.Bytes(), []byte("\x1b")) || !bytes.Contains(stdout.Bytes(), []byte(" fresh\n")) {
		t.Errorf("beside a terminal: %q", stdout.String())
	}
}

// TestFrames: --watch shows each look at the top of the cleared screen, and what was scrolled away before stays. Whoever writes
// to a file, or asks for JSON, gets no escape.
func TestFrames(t *testing.T) {
	found := sightings{Root: "/root", Tokens: []sighting{}}
	for _, c := range []struct {
		o    inspection
		want string
	}{
		{inspection{watch: true, output: "table"}, "\x1b[H\x1b[2Jno projected token below /root\r\n\x1b[H\x1b[2J/root is away; looking again\r\n"},
		{inspection{output: "wide"}, "no projected token below /root\r\n/root is away; looking again\r\n"},
	} {
		show := func(w io.Writer) {
			gone := found
			gone.Error = "/root is away"
			for _, frame := range []sightings{found, gone} {
				if err := c.o.print(w, frame); err != nil {
					t.Error(err)
				}
			}
		}
		if got := onTerminal(t, func(terminal *os.File) { show(terminal) }); got != c.want {
			t.Errorf("%+v: %q, want %q", c.o, got, c.want)
		}
		c.o.watch = true
		for _, c.o.output = range outputs {
			var file bytes.Buffer
			if show(&file); bytes.Contains(file.Bytes(), []byte("\x1b")) || !bytes.Contains(file.Bytes(), []byte("/root is away")) {
				t.Errorf("-o %s beside a terminal: %q", c.o.output, file.String())
			}
		}
	}
}
