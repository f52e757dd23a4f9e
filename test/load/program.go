package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTime = 30 * time.Second // from the start of a program to its line that says it serves
	drainTime = 20 * time.Second // from SIGTERM to its end
)

// program is one that was started.
type program struct {
	name string
	cmd  *exec.Cmd
	said chan string   // lines with one of the words that are waited for
	done chan struct{} // closed at its end; err is set before
	err  error

	mu   sync.Mutex
	tail []string // the last lines that it wrote
}

// start begins a program in a process group of its own: an interrupt reaches load alone. It dies with load. Lines with one of
// the words can be waited for; there must be one line for each. log, unless nil, gets all that it writes.
func start(words []string, log io.Writer, path string, args ...string) (*program, error) {
	p := &program{
		name: filepath.Base(path), cmd: exec.Command(path, args...),
		said: make(chan string, len(words)), done: make(chan struct{}),
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w := io.Pipe()
	var both io.Writer = w
	if log != nil {
		both = io.MultiWriter(log, w)
	}
	p.cmd.Stdout, p.cmd.Stderr = both, both
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	read := make(chan struct{})
	go func() {
		p.follow(r, words)
		close(read)
	}()
	go func() {
		p.err = p.cmd.Wait()
		w.Close()
		<-read
		close(p.done)
	}()
	return p, nil
}

func (p *program) follow(r io.Reader, words []string) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		p.mu.Lock()
		p.tail = append(p.tail[max(0, len(p.tail)-20):], line)
		p.mu.Unlock()
		if i := slices.IndexFunc(words, func(w string) bool { return strings.Contains(line, w) }); i >= 0 {
			words = slices.Delete(words, i, i+1)
			p.said <- line
		}
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long
}

// line waits for the next line that was to be waited for.
func (p *program) line(ctx context.Context) (string, error) {
	select {
	case line := <-p.said:
		return line, nil
	case <-p.done:
		return "", p.died()
	case <-time.After(startTime):
		return "", fmt.Errorf("%s does not serve after %v", p.name, startTime)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// died tells that the program has ended unasked; nil while it runs.
func (p *program) died() error {
	select {
	case <-p.done:
		p.mu.Lock()
		defer p.mu.Unlock()
		return fmt.Errorf("%s ended by itself: %v\n%s", p.name, p.err, strings.Join(p.tail, "\n"))
	default:
		return nil
	}
}

// stop ends it in good order.
func (p *program) stop() error {
	if err := p.died(); err != nil {
		return err
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
	case <-time.After(drainTime):
		p.kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM", p.name, drainTime)
	}
	if p.err != nil {
		return fmt.Errorf("%s after SIGTERM: %w", p.name, p.err)
	}
	return nil
}

// kill ends it if need be, and returns when it is gone.
func (p *program) kill() {
	_ = p.cmd.Process.Kill() // fails only if it has ended
	<-p.done
}
