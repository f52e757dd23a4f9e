//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/test/docs"
)

const top = "../.."

// TestSystemd types the commands by which docs/quickstart.md makes the daemon a service, on a systemd that has nothing else. The
// unit's settings leave the daemon what it needs, and its tokens outlive it; what it may not have, it has not.
func TestSystemd(t *testing.T) {
	said := underSystemd(t, documented(t))
	for _, want := range []string{
		"enabled", fmt.Sprintf("CapEff:\t%016x", bits(t)), "NoNewPrivs:\t1", "Seccomp:\t2", "mount / ro", "mount /run/token-projector rw", "ended: 0",
	} {
		if !slices.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, strings.Join(said, "\n"))
		}
	}
}

// TestSystemdFaults: a command that fails, TestSystemd would hear of.
func TestSystemdFaults(t *testing.T) {
	said := underSystemd(t, []string{"systemctl enable --now nothing"})
	if last := said[len(said)-1]; last == "ended: 0" || !strings.HasPrefix(last, "ended: ") {
		t.Errorf("it says %q", said)
	}
}

// documented are the commands of the documents that need a systemd.
func documented(t *testing.T) (commands []string) {
	t.Helper()
	all, err := docs.All(top)
	check(t, err)
	for _, c := range all {
		if strings.HasPrefix(c.Text, "install ") || strings.HasPrefix(c.Text, "systemctl ") {
			commands = append(commands, strings.ReplaceAll(c.Text, "FILE", "bin/kubeconfig"))
		}
	}
	if len(commands) < 4 {
		t.Errorf("the documents have the commands %q", commands)
	}
	return commands
}

// bits are the capabilities of the DaemonSet's container, as the kernel shows them.
func bits(t *testing.T) (set uint64) {
	t.Helper()
	numbers := map[string]int{
		"CHOWN": unix.CAP_CHOWN, "DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE, "FOWNER": unix.CAP_FOWNER, "FSETID": unix.CAP_FSETID,
	}
	for _, name := range capabilities(t, manifest) {
		number, known := numbers[name]
		if !known {
			t.Errorf("the DaemonSet has %s", name)
		}
		set |= 1 << number
	}
	return set
}

// underSystemd types commands beside a systemd of their own, and returns what is said then.
func underSystemd(t *testing.T, commands []string) (said []string) {
	t.Helper()
	programs := t.TempDir()
	build := exec.Command("go", "build", "-o", programs, "./cmd/token-projector", "./test/fake-apiserver")
	build.Dir = top
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	checkout, err := filepath.Abs(top)
	check(t, err)
	file := filepath.Join(t.TempDir(), "commands")
	check(t, os.WriteFile(file, []byte(strings.Join(commands, "\n")+"\n"), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "testdata/systemd.sh", checkout, programs, file)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
		UseCgroupFD: true, CgroupFD: cgroup(t), Pdeathsig: syscall.SIGKILL,
	}
	out, err := cmd.StdoutPipe()
	check(t, err)
	cmd.Stderr = cmd.Stdout
	check(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		said = append(said, lines.Text())
		if strings.HasPrefix(lines.Text(), "ended: ") {
			break
		}
	}
	cancel() // it is process 1 there, and all that it has started ends with it
	if cmd.Wait(); len(said) == 0 {
		t.Fatal("it says nothing")
	}
	return said
}

// cgroup is a new one below the test's own, with whatever systemd makes in it until the test's end.
func cgroup(t *testing.T) int {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	check(t, err)
	own, err := os.ReadFile("/proc/self/cgroup")
	check(t, err)
	var at string
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); slices.Contains(fields, "cgroup2") {
			at = fields[4]
		}
	}
	for line := range strings.Lines(string(own)) {
		if below, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok && at != "" {
			at = filepath.Join(at, below)
		}
	}
	dir, err := os.MkdirTemp(at, "token-projector-")
	check(t, err)
	t.Cleanup(func() { check(t, exec.Command("find", dir, "-depth", "-type", "d", "-delete").Run()) })
	fd, err := os.Open(dir)
	check(t, err)
	t.Cleanup(func() { fd.Close() })
	return int(fd.Fd())
}
