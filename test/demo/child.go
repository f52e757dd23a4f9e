package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	drainTime = 15 * time.Second // from SIGTERM to exit
	tailLines = 25               // of a failed child's log that are shown
)

// child is one program that was started.
type child struct {
	name string
	cmd  *exec.Cmd
	out  *log.Logger
	done chan struct{} // closed at its end; err and tail are set before
	err  error         // of Wait
	tail []string      // the last lines of its log
}

// start begins a program in a process group of its own, so that Ctrl-C of a
// terminal reaches demo alone and demo decides in which order things end. It
// dies with demo.
func start(out *log.Logger, path string, args ...string) (*child, error) {
	c := &child{name: filepath.Base(path), cmd: exec.Command(path, args...), out: out, done: make(chan struct{})}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	go c.follow(stderr)
	return c, nil
}

// follow reads the log to its end, then waits for the process.
func (c *child) follow(stderr io.Reader) {
	defer close(c.done)
	for r := bufio.NewReader(stderr); ; {
		line, err := r.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" {
			c.tail = append(c.tail[max(0, len(c.tail)-tailLines+1):], line)
			if text := remark(line); text != "" {
				c.out.Print(text)
			}
		}
		if err != nil {
			break
		}
	}
	c.err = c.cmd.Wait()
}

// remark is what a line of a JSON log is worth telling: where the daemon
// serves, and what it warns of. Other lines are "".
func remark(line string) string {
	var entry struct {
		Level, Msg, Message, Address, Pod, Volume, Error string
	}
	if json.Unmarshal([]byte(line), &entry) != nil {
		return ""
	}
	switch message := entry.Msg + entry.Message; {
	case message == "serving metrics":
		return "metrics  http://" + entry.Address + "/metrics"
	case message == "serving health":
		return "health   http://" + entry.Address + "/readyz"
	case entry.Level == "warn" || entry.Level == "error":
		words := strings.Fields(entry.Pod + " " + entry.Volume + " " + entry.Error)
		return strings.Join(append([]string{"log      " + entry.Level + ": " + message}, words...), " ")
	}
	return ""
}

// died tells that the program ended unasked; nil while it runs.
func (c *child) died() error {
	select {
	case <-c.done:
		return fmt.Errorf("%s ended by itself: %v\n%s", c.name, exitText(c.err), strings.Join(c.tail, "\n"))
	default:
		return nil
	}
}

// stop ends a running program in good order and wants exit code 0. One that
// died before is not reported again.
func (c *child) stop() error {
	if c.died() != nil {
		return nil
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", c.name, err)
	}
	select {
	case <-c.done:
	case <-time.After(drainTime):
		c.kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM", c.name, drainTime)
	}
	if c.err != nil {
		return fmt.Errorf("%s after SIGTERM: %w\n%s", c.name, c.err, strings.Join(c.tail, "\n"))
	}
	return nil
}

// kill ends it if need be and returns when it is gone.
func (c *child) kill() {
	select {
	case <-c.done:
	default:
		_ = c.cmd.Process.Kill() // fails only if it has just ended
		<-c.done
	}
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}
