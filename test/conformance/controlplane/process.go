package controlplane

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// process is a child of ours. One goroutine waits for it.
type process struct {
	name    string
	logFile string
	cmd     *exec.Cmd
	done    chan struct{} // closed once the child has been waited for
}

// startProcess starts binary with its output in logFile. The kernel kills the child if this process dies first.
func startProcess(name, binary, logFile string, args ...string) (*process, error) {
	log, err := os.Create(logFile)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	// Not in our process group: an interrupt at the terminal is ours to handle, in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, logFile: logFile, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is in its log
	}()
	return p, nil
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the child and waits for its end. Nothing it holds is worth a gentle stop.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // an error means it has ended
	<-p.done
}

// tail returns the last lines of the log, at most 8 KiB.
func (p *process) tail() string {
	const most = 8 << 10
	log, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	if len(log) <= most {
		return string(log)
	}
	log = log[len(log)-most:]
	return string(log[bytes.IndexByte(log, '\n')+1:])
}
