package controlplane

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// parentEnv makes this test binary a process that starts a child, says its number, and waits to be killed.
const parentEnv = "CONTROLPLANE_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		p, err := startProcess("child", "/bin/sh", filepath.Join(dir, "log"), "-c", "while :; do sleep 1000; done")
		if err != nil {
			panic(err)
		}
		fmt.Println(p.cmd.Process.Pid)
		select {}
	}
	os.Exit(m.Run())
}

// The kernel must end the children of a run that was killed.
func TestChildDiesWithItsParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	if !running(pid) {
		t.Fatal("the child does not run")
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	for deadline := time.Now().Add(10 * time.Second); running(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the child has outlived its parent")
		}
	}
}

// running reports whether the process is there and not merely waiting to be collected.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return fields[0] != "Z"
}

func TestTailIsTheLastLines(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p := &process{logFile: log}
	if err := os.WriteFile(log, []byte(strings.Repeat("early\n", 10_000)+"late\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tail := p.tail()
	if len(tail) > 8<<10 || !strings.HasPrefix(tail, "early\n") || !strings.HasSuffix(tail, "late\n") {
		t.Errorf("tail of %d bytes: %.20q ... %q", len(tail), tail, tail[len(tail)-10:])
	}
}

func testKubeconfig(t *testing.T, plane *ControlPlane) {
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := WriteKubeconfig(file, plane.Admin()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	version, err := clientFor(t, config).Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.GitVersion != "v1.37.0" {
		t.Errorf("server version %s, want the one in go.mod, v1.37.0", version.GitVersion)
	}
}
