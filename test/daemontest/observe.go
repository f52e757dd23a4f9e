package daemontest

import (
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Background starts a process that ends with the test, or with the tests' process.
func Background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// Observe runs the program's observe on a root, and returns the address of its metrics. The test's end ends it.
func Observe(t *testing.T, root string, extra ...string) string {
	t.Helper()
	return ObserveUnder(t, nil, root, extra...)
}

// ObserveUnder is Observe by way of a command, which must become the program.
func ObserveUnder(t *testing.T, command []string, root string, extra ...string) string {
	t.Helper()
	out := &output{changed: make(chan struct{})}
	args := slices.Concat(command, []string{
		binary, "observe", "--root-dir", root, "--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0",
	}, extra)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	Background(t, cmd)
	var address string
	Eventually(t, "observe serves metrics", func() bool {
		for line := range strings.Lines(out.String()) {
			if entry := parse(line); entry["msg"] == "serving metrics" {
				address, _ = entry["address"].(string)
			}
		}
		return address != ""
	})
	return address
}
