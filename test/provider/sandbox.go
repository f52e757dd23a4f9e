package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// sandbox is what a container sees, and runs.
type sandbox struct {
	Root   string            // any directory; in the container's own mount namespace its root is mounted there
	Mounts map[string]string // absolute path inside → directory outside
	Argv   []string          // the program, as it is named inside, and its arguments
}

// Names in every container.
const (
	selfInside = "/provider"
	lockFile   = 3 // the descriptor of the process's own file; see processes
)

// machine is what a container sees of this machine: what programs need to run.
var machine = []string{"bin", "lib", "lib64", "usr", "proc"}

// enter is run in a mount namespace of its own. It makes it look as the sandbox
// says and becomes the container's program.
func enter(spec string) error {
	if _, err := unix.Pwrite(lockFile, []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("write the process's number: %w", err)
	}
	var s sandbox
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	if err := s.mount(); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(s.Root), os.Chdir("/")); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return fmt.Errorf("execute %s: %w", s.Argv[0], syscall.Exec(s.Argv[0], s.Argv, os.Environ()))
}

// mount builds the container's root: in memory, with everything else bound into
// it, and read-only when it is complete.
func (s *sandbox) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("tmpfs", s.Root, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount a root on %s: %w", s.Root, err)
	}
	if err := s.mountMachine(); err != nil {
		return err
	}
	for inside, outside := range s.Mounts {
		to := filepath.Join(s.Root, filepath.Clean("/"+inside))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := bind(outside, to); err != nil {
			return err
		}
	}
	return readOnly(s.Root)
}

// mountMachine binds the machine's programs, and this one.
func (s *sandbox) mountMachine() error {
	for _, name := range machine {
		from, to := filepath.Join("/", name), filepath.Join(s.Root, name)
		target, err := os.Readlink(from)
		switch {
		case err == nil:
			err = os.Symlink(target, to)
		case errors.Is(err, fs.ErrNotExist):
			err = nil
		default: // no link
			if err = os.Mkdir(to, 0o755); err == nil {
				err = bind(from, to)
			}
		}
		if err != nil {
			return err
		}
	}
	self := filepath.Join(s.Root, selfInside)
	if err := os.WriteFile(self, nil, 0o755); err != nil {
		return err
	}
	return bind("/proc/self/exe", self)
}

// bind shows a file or directory in another place, read-only.
func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	return readOnly(to)
}

func readOnly(mount string) error {
	if err := unix.MountSetattr(unix.AT_FDCWD, mount, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make %s read-only: %w", mount, err)
	}
	return nil
}
