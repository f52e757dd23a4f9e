// Command beside runs a command beside a real control plane, which begins before it and ends with it.
//
//	beside NODE COMMAND [ARGUMENT]...
//
// Of the arguments, ADMIN becomes the path of a kubeconfig of the administrator, and NODE that of one of the node of that name.
// The exit code is the command's, or 1 if there was none.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/token-projector/token-projector/test/conformance/controlplane"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: beside NODE COMMAND [ARGUMENT]...")
		os.Exit(2)
	}
	err := run(ctx, os.Args[1], os.Args[2:])
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.Exited() {
		os.Exit(e.ExitCode()) // it has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "beside:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, node string, command []string) (err error) {
	dir, err := os.MkdirTemp("", "beside-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	plane, err := controlplane.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Stop()) }()
	files := map[string]string{"ADMIN": filepath.Join(dir, "admin"), "NODE": filepath.Join(dir, "node")}
	config, err := plane.Node(node)
	if err != nil {
		return err
	}
	if err := errors.Join(controlplane.WriteKubeconfig(files["ADMIN"], plane.Admin()), controlplane.WriteKubeconfig(files["NODE"], config)); err != nil {
		return err
	}
	for i, arg := range command {
		if file, ok := files[arg]; ok {
			command[i] = file
		}
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it cleans up
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
