package controlplane

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Build builds the three programs and kubectl, as one binary, into the user's cache directory and returns its path. `go build`
// leaves a binary alone that is up to date. Concurrent calls, also of other processes, wait for each other.
func Build(ctx context.Context) (string, error) {
	return build(ctx, "controlplane", "./cmd/controlplane")
}

// BuildKubelet does the same with the kubelet of the same release.
func BuildKubelet(ctx context.Context) (string, error) {
	return build(ctx, "kubelet", "k8s.io/kubernetes/cmd/kubelet")
}

func build(ctx context.Context, name, pkg string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w", err)
	}
	dir := filepath.Join(cache, "token-projector-conformance")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	module, err := ModuleDir(ctx)
	if err != nil {
		return "", err
	}
	version, err := run(ctx, module, "go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "conformance: building the %s (minutes the first time, seconds after)\n", name)
	binary := filepath.Join(dir, name)
	_, err = run(ctx, module, "go", "build", "-ldflags", "-X k8s.io/component-base/version.gitVersion="+version,
		"-o", binary, pkg)
	return binary, err
}

// ModuleDir returns the top directory of the conformance module, in which the caller must be.
func ModuleDir(ctx context.Context) (string, error) {
	file, err := run(ctx, "", "go", "env", "GOMOD")
	return filepath.Dir(file), err
}

// run returns the standard output of a command in dir ("" is the caller's), without the space around it.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, args[0], err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func lock(name string) (unlock func(), err error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the build lock: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		file.Close()
		return nil, fmt.Errorf("take the build lock: %w", err)
	}
	return func() { file.Close() }, nil
}
