//go:build docs

package docs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// terminal is where a command goes on.
type terminal struct {
	text   string
	cmd    *exec.Cmd
	file   string
	exited chan struct{}
	err    error // once exited
}

// start types a command into a terminal of its own.
func (r *reader) start(text string) (*terminal, error) {
	file, err := os.Create(filepath.Join(r.t.TempDir(), "output"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	term := &terminal{text: text, cmd: r.shell(context.Background(), "exec "+text), file: file.Name(), exited: make(chan struct{})}
	term.cmd.Stdout, term.cmd.Stderr = file, file
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := term.cmd.Start(); err != nil {
		return nil, err
	}
	r.started = append(r.started, term)
	go func() {
		term.err = term.cmd.Wait()
		close(term.exited)
	}()
	return term, nil
}

// await waits until a terminal shows something, and for our tokens if it is the daemon's.
func (r *reader) await(term *terminal, ready *regexp.Regexp) error {
	deadline := time.After(patience)
	for {
		out, err := os.ReadFile(term.file)
		if err != nil {
			return err
		}
		if ready.Match(out) && (!strings.HasPrefix(term.text, "bin/token-projector run") || r.fresh(term.text)) {
			return nil
		}
		select {
		case <-term.exited:
			out, _ = os.ReadFile(term.file)
			return errors.New("it ended\n" + string(out))
		case <-deadline:
			return errors.New("it is not ready\n" + string(out))
		case <-time.After(20 * time.Millisecond): // another process tells nobody
		}
	}
}

// fresh reports whether every token of the root is there.
func (r *reader) fresh(text string) bool {
	at := root
	if _, other, ok := strings.Cut(text, "--root-dir "); ok {
		at = other
	}
	out, err := r.shell(r.t.Context(), "bin/token-projector inspect --root-dir "+at).Output()
	return err == nil && strings.Contains(string(out), " fresh") && !strings.Contains(string(out), " pending")
}

// endAll ends what goes on and begins so, as Ctrl-C does, the latest first; its exit status must be 0.
func (r *reader) endAll(beginning string) {
	for _, term := range slices.Backward(r.started) {
		if !strings.HasPrefix(term.text, beginning) {
			continue
		}
		select {
		case <-term.exited: // by itself: try has said so
			continue
		default:
		}
		syscall.Kill(-term.cmd.Process.Pid, syscall.SIGINT)
		select {
		case <-term.exited:
		case <-time.After(patience):
			syscall.Kill(-term.cmd.Process.Pid, syscall.SIGKILL)
			<-term.exited
		}
		// After Ctrl-C `go run` says 1, whatever the program said.
		if term.err != nil && !strings.HasPrefix(term.text, "go run ") {
			out, _ := os.ReadFile(term.file)
			r.t.Errorf("%s: Ctrl-C: %v\n%s", term.text, term.err, out)
		}
	}
	r.started = slices.DeleteFunc(r.started, func(term *terminal) bool { return strings.HasPrefix(term.text, beginning) })
}
