package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// sandboxEnv carries a sandbox to a copy of this test binary, which becomes what runs in it.
const sandboxEnv = "CONFORMANCE_SANDBOX"

// sandbox is a container as far as one can be had from the kernel alone: its own mounts, a read-only root, few
// capabilities, no new privileges. Process numbers, network and devices are the machine's.
type sandbox struct {
	Root         string            // directory that becomes /; it holds the program, and places for the mounts
	Mounts       map[string]string // absolute path inside -> directory outside
	ReadOnly     []string          // those of Mounts that may not be written
	Later        []string          // those of Mounts in which is seen what is mounted there later: HostToContainer
	Capabilities []string          // what is kept, as in a container's securityContext: CHOWN
	Argv         []string          // the program, as it is named inside, and its arguments
	Env          []string
}

// command returns the sandboxed program, not started. As an ordinary user it is root in a user namespace of its own.
func (s *sandbox) command() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	spec, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	for inside := range s.Mounts {
		if err := os.MkdirAll(filepath.Join(s.Root, inside), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Join(s.Root, "proc"), 0o755); err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = []string{sandboxEnv + "=" + string(spec)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd, nil
}

// enterSandbox builds the sandbox around this process and becomes the program.
func enterSandbox(spec string) {
	runtime.LockOSThread() // capabilities belong to a thread
	var s sandbox
	err := json.Unmarshal([]byte(spec), &s)
	if err == nil {
		err = s.enter()
	}
	fmt.Fprintln(os.Stderr, "sandbox:", err)
	os.Exit(1)
}

func (s *sandbox) enter() error {
	if err := s.mountAll(); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(s.Root), os.Chdir("/")); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := keepCapabilities(s.Capabilities); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return fmt.Errorf("execute %s: %w", s.Argv[0], syscall.Exec(s.Argv[0], s.Argv, s.Env))
}

// mountAll makes s.Root a mount of its own with all others below it, and then read-only.
func (s *sandbox) mountAll() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := bind(s.Root, s.Root); err != nil {
		return err
	}
	if err := bind("/proc", filepath.Join(s.Root, "proc")); err != nil {
		return err
	}
	for inside, outside := range s.Mounts {
		to := filepath.Join(s.Root, inside)
		if err := bind(outside, to); err != nil {
			return err
		}
		if !slices.Contains(s.Later, inside) {
			if err := unix.Mount("", to, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("see nothing of what is mounted later on %s: %w", inside, err)
			}
		}
		if slices.Contains(s.ReadOnly, inside) {
			if err := readOnly(to); err != nil {
				return err
			}
		}
	}
	return readOnly(s.Root)
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", from, to, err)
	}
	return nil
}

// readOnly keeps the mount's other flags: in a user namespace they are locked.
func readOnly(mount string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(mount, &fs); err != nil {
		return fmt.Errorf("read the flags of %s: %w", mount, err)
	}
	const same = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	flags := uintptr(fs.Flags) & same
	const relatime = 0x1000 // ST_RELATIME
	if fs.Flags&relatime != 0 {
		flags |= unix.MS_RELATIME
	}
	if err := unix.Mount("", mount, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", mount, err)
	}
	return nil
}

// capabilities that this test knows by name; an unknown one in a manifest is an error.
var capabilities = map[string]int{
	"CHOWN":           unix.CAP_CHOWN,
	"DAC_OVERRIDE":    unix.CAP_DAC_OVERRIDE,
	"DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
	"FOWNER":          unix.CAP_FOWNER,
	"FSETID":          unix.CAP_FSETID,
}

// keepCapabilities takes all others from the bounding set: a program executed as root has just the bounding set.
func keepCapabilities(names []string) error {
	keep := map[int]bool{}
	for _, name := range names {
		number, known := capabilities[strings.TrimPrefix(name, "CAP_")]
		if !known {
			return fmt.Errorf("capability %s is not known here", name)
		}
		keep[number] = true
	}
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if keep[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) { // EINVAL: newer than the kernel
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}
