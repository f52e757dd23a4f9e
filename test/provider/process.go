package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// processes are the containers' processes, each with a file
//
//	<dir>/pods/<pod UID>/<container>
//
// that holds its number and is locked as long as it runs: by the process
// itself, so the lock outlives the provider, and ends with the process however
// that ends. The lock is taken before the process begins. So there is no moment
// in which the provider could be killed and leave a process that nobody knows.
type processes struct{ dir string }

// endPoll is how often a process is looked at that is to end.
const endPoll = 20 * time.Millisecond

func (p processes) podDir(uid types.UID) string { return filepath.Join(p.dir, "pods", string(uid)) }

func (p processes) file(uid types.UID, container string) string {
	return filepath.Join(p.podDir(uid), container)
}

// output is where a container's output goes. It stays when the pod is gone.
func (p processes) output(uid types.UID, container string) string {
	return filepath.Join(p.dir, "logs", string(uid)+"."+container)
}

// pods lists the pods of which something may run.
func (p processes) pods() ([]types.UID, error) {
	names, err := names(filepath.Join(p.dir, "pods"))
	var uids []types.UID
	for _, name := range names {
		uids = append(uids, types.UID(name))
	}
	return uids, err
}

// containers lists those of a pod that have ever been started.
func (p processes) containers(uid types.UID) ([]string, error) { return names(p.podDir(uid)) }

// names lists a directory; one that is not there has none.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

// forget removes what is remembered of a pod of which nothing runs.
func (p processes) forget(uid types.UID) error { return os.RemoveAll(p.podDir(uid)) }

// start starts a container and does not wait for it.
func (p processes) start(uid types.UID, container string, box *sandbox) error {
	for _, dir := range []string{p.podDir(uid), filepath.Join(p.dir, "logs"), filepath.Join(p.dir, "root")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	lock, err := os.OpenFile(p.file(uid, container), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // the process has a copy
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if err := lock.Truncate(0); err != nil { // of an earlier process
		return err
	}
	output, err := os.OpenFile(p.output(uid, container), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	box.Root = filepath.Join(p.dir, "root")
	cmd, err := box.command()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = output, output, []*os.File{lock}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", container, err)
	}
	go cmd.Wait() // nobody is interested in how it ends, but somebody has to ask
	return nil
}

// running reports whether the container's process runs.
func (p processes) running(uid types.UID, container string) (bool, error) {
	file, err := os.Open(p.file(uid, container))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close() // gives the lock back
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// stop ends the container's process, by force when its grace is over, and
// returns when it has ended.
func (p processes) stop(ctx context.Context, uid types.UID, container string, grace time.Duration) error {
	term, deadline := syscall.SIGTERM, time.Now().Add(grace)
	for {
		sig := term
		if !time.Now().Before(deadline) {
			sig = syscall.SIGKILL
		}
		runs, sent, err := p.signal(uid, container, sig)
		if err != nil || !runs {
			return err
		}
		if sent {
			term = 0 // once is enough
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(endPoll):
		}
	}
}

// signal sends the container's process a signal; 0 sends none. It may run and
// not be sent one, when it has just begun.
func (p processes) signal(uid types.UID, container string, sig syscall.Signal) (runs, sent bool, err error) {
	process := p.find(uid, container)
	if process != nil {
		defer process.Release()
	}
	// If it runs now, the handle that was taken before is of this process.
	if runs, err = p.running(uid, container); runs && process != nil && sig != 0 {
		sent = process.Signal(sig) == nil
	}
	return runs, sent, err
}

// find returns a handle of the process that the container's file names; nil if
// it names none yet, or none that is there.
func (p processes) find(uid types.UID, container string) *os.Process {
	text, err := os.ReadFile(p.file(uid, container))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return nil
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return nil
	}
	return process
}

// command is this program again, to become the container.
func (s *sandbox) command() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "enter", string(spec))
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	// A session of its own: what ends the provider, such as Ctrl-C, must not end it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Setsid: true}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd, nil
}
