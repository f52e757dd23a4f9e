package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

const (
	nodeName    = "demo-node"
	maxLifetime = "10s" // what the fake API server cuts every token down to
)

// options are the flags.
type options struct {
	daemon, server string        // paths of the two programs
	length         time.Duration // of the run, from the start of the daemon; 0: until a signal
}

func main() {
	// The children die with the thread that started them (Pdeathsig), so this
	// goroutine, which starts both, keeps its thread for good.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args, stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 2
	}
	out := log.New(stdout, "", 0) // safe for the children's goroutines
	summary, err := play(ctx, o, out)
	if err != nil {
		out.Printf("demo: FAILED: %v", err)
		return 1
	}
	out.Printf("demo: ok: %s", summary)
	return 0
}

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.daemon, "daemon", "bin/token-projector", "path of token-projector")
	flags.StringVar(&o.server, "fake-apiserver", "bin/fake-apiserver", "path of fake-apiserver")
	flags.DurationVar(&o.length, "for", 0, "length of the run; 0 is until Ctrl-C")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.length < 0 {
		return o, fmt.Errorf("--for must not be negative, is %v", o.length)
	}
	return o, nil
}

// play makes the temporary directory and takes it away again.
func play(ctx context.Context, o options, out *log.Logger) (summary string, err error) {
	dir, err := os.MkdirTemp("", "token-projector-demo-")
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() {
		if gone := os.RemoveAll(dir); gone != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", gone))
		}
	}()
	return playIn(ctx, o, dir, out)
}

// playIn runs both programs in dir and ends them before it returns.
func playIn(ctx context.Context, o options, dir string, out *log.Logger) (string, error) {
	kubeconfig, root := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "root")
	server, err := start(out, o.server, "--kubeconfig-out", kubeconfig,
		"--max-token-expiration", maxLifetime, "--demo", "--node", nodeName)
	if err != nil {
		return "", err
	}
	defer server.kill()
	client, err := connect(ctx, kubeconfig, server)
	if err != nil {
		return "", err
	}
	daemon, err := start(out, o.daemon, "run", "--node-name", nodeName, "--kubeconfig", kubeconfig,
		"--root-dir", root, "--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer daemon.kill()
	out.Printf("root     %s", root)
	r := newReader(client, root, out)
	alive := r.run(ctx, o.length, server, daemon)
	summary, verdict := r.conclude(o.length)
	// The daemon first, so that it is not cut off from its server.
	return summary, errors.Join(alive, verdict, daemon.stop(), server.stop())
}
