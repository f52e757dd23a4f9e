package conformance

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/token-projector/token-projector/test/conformance/controlplane"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// What all tests share. TestMain sets it before the first and ends it after the last.
var (
	plane  *controlplane.ControlPlane
	client *kubernetes.Clientset // the administrator's
	image  builtImage
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(sandboxEnv); spec != "" {
		enterSandbox(spec) // does not return
	}
	os.Exit(run(m))
}

// run starts what the tests share, runs them, and ends it, also when interrupted. The result is the exit code.
func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	if err := setUp(ctx, dir); err != nil {
		return failed(err)
	}
	defer plane.Stop()

	result := make(chan int, 1)
	go func() { result <- m.Run() }()
	select {
	case code := <-result:
		if code != 0 {
			fmt.Fprintln(os.Stderr, plane.Logs())
		}
		return code
	case <-ctx.Done():
		// The kernel ends the daemons of the tests that still run (Pdeathsig).
		return failed(context.Cause(ctx))
	}
}

func setUp(ctx context.Context, dir string) error {
	module, err := controlplane.ModuleDir(ctx)
	if err != nil {
		return err
	}
	top := filepath.Join(module, "..", "..")
	if image, err = buildImage(ctx, top, dir, "022"); err != nil {
		return err
	}
	if plane, err = controlplane.Start(ctx); err != nil {
		return err
	}
	if client, err = kubernetes.NewForConfig(plane.Admin()); err != nil {
		return fmt.Errorf("make the administrator's client: %w", err)
	}
	return nil
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "conformance:", err)
	return 1
}

func clientFor(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
