package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// peer is how a process begins that has not the capabilities to read others' memory, as in a container; an ordinary user has none.
func peer() []string {
	if os.Geteuid() != 0 {
		return nil
	}
	const without = "-sys_ptrace,-sys_admin,-perfmon"
	return []string{"setpriv", "--bounding-set=" + without, "--inh-caps=" + without}
}

// inviting is how one begins that would leave all behind if it could: no limit to core files, and a runtime that asks for one.
func inviting() []string {
	return append(peer(), "sh", "-c", `ulimit -c "$(ulimit -H -c)" && GOTRACEBACK=crash exec "$@"`, "sh")
}

func start(t *testing.T, argv ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = t.TempDir()
	check(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// ready waits until a process has become what its command says.
func ready(t *testing.T, pid int, name string) {
	t.Helper()
	eventually(t, name, func() bool {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		return strings.TrimSpace(string(comm)) == name
	})
}

// readable lists what another process of the same user may read of one. All of it, and tracing, is one right of the kernel's.
func readable(pid int) (files []string) {
	for _, file := range []string{"maps", "environ", "auxv", "fd/0", "cwd"} {
		read := append(peer(), "cat")
		if file == "fd/0" || file == "cwd" {
			read = append(peer(), "readlink")
		}
		path := fmt.Sprintf("/proc/%d/%s", pid, file)
		if exec.Command(append(read, path)[0], append(read, path)[1:]...).Run() == nil {
			files = append(files, file)
		}
	}
	return files
}

// coreLimit is the line of a process's limits.
func coreLimit(t *testing.T, pid int) string {
	t.Helper()
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	check(t, err)
	_, after, ok := strings.Cut(string(limits), "Max core file size")
	line, _, _ := strings.Cut(after, "\n")
	if !ok {
		t.Fatalf("no limit of core files in\n%s", limits)
	}
	return strings.Join(strings.Fields(line), " ")
}

const noCore = "0 0 bytes"

// TestMemoryIsPrivate: no other process of its user can read the daemon's memory, and when it crashes while it holds a token, in an
// environment that asks for a core file, there is none. What it prints then has no token in it, as in every test here. An
// ordinary process beside it can be read, and leaves a core file.
func TestMemoryIsPrivate(t *testing.T) {
	t.Parallel()
	planted := start(t, append(inviting(), "sleep", "1000")...)
	ready(t, planted.Process.Pid, "sleep")
	if got := readable(planted.Process.Pid); len(got) != 5 {
		t.Fatalf("of an ordinary process only %v can be read", got)
	}
	dumps := dumps(t, planted)

	w := newWorld(t, fakeapi.Options{})
	d := &daemon{w, daemontest.StartUnder(t, inviting(), w.api, w.root)}
	w.waitPublished(w.pod("demo", "web"))
	hangs := fakeapi.TokenRequests
	hangs.Namespace = "other"
	w.api.Inject(fakeapi.Fault{Match: hangs, Action: fakeapi.HangBody, Forever: true})
	w.pod("other", "web")
	_, err := w.api.WaitRequests(t.Context(), hangs, 1)
	check(t, err)
	if got := readable(d.PID()); len(got) > 0 {
		t.Errorf("%v of the daemon can be read by others", got)
	}
	if got := coreLimit(t, d.PID()); got != noCore {
		t.Errorf("core files of the daemon: %s", got)
	}
	status := d.Abort()
	if !status.Signaled() || status.Signal() != syscall.SIGABRT || status.CoreDump() {
		t.Errorf("the daemon ended with %v, with a core file: %v, which ordinary processes leave: %v", status.Signal(), status.CoreDump(), dumps)
	}
	if out := d.Output(); !strings.Contains(out, "goroutine 1 ") || !strings.Contains(out, "SIGABRT: abort") {
		t.Error("it has not printed its goroutines")
	}
}

// dumps aborts a process and reports whether it leaves a core file. It must, where that depends on this process alone: on its
// limits, and not on a place or program that the machine keeps core files with.
func dumps(t *testing.T, cmd *exec.Cmd) bool {
	t.Helper()
	limit := coreLimit(t, cmd.Process.Pid)
	check(t, cmd.Process.Signal(syscall.SIGABRT))
	_ = cmd.Wait() // it says by what it ended
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	check(t, err)
	elsewhere := strings.HasPrefix(string(pattern), "|") || filepath.IsAbs(string(pattern))
	if !status.CoreDump() && limit != noCore && !elsewhere {
		t.Fatalf("an ordinary process leaves no core file; limit %s, pattern %s", limit, pattern)
	}
	return status.CoreDump()
}
