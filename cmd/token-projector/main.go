// Token-projector keeps the projected ServiceAccount tokens of one node's pods
// fresh on disk.
//
//	token-projector run [flags]   project until SIGTERM or SIGINT
//	token-projector version       print the version
//	token-projector help          print this and the flags
//
// It exits 0 after a signal, 1 if it could not start or go on, and 2 if its
// command line is wrong. A second signal ends it at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/token-projector/token-projector/projector"
)

// version is set by the linker.
var version = "dev"

const usage = `Usage:
  token-projector run [flags]   project the tokens of this node's pods until SIGTERM
  token-projector version       print the version
  token-projector help          print this

Flags of run:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // the second signal meets the default action
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// command carries out the command line and returns the exit status.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	name := "help"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "run":
		return runCommand(ctx, args, stdout, stderr)
	case "version", "--version":
		fmt.Fprintf(stdout, "token-projector %s (%s, %s)\n", version, revision(), runtime.Version())
		return 0
	case "help", "--help", "-h":
		printUsage(stdout)
		return 0
	}
	return misuse(stderr, fmt.Errorf("unknown command %q; try token-projector help", name))
}

func runCommand(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, os.Getenv)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		printUsage(stdout)
		return 0
	case err != nil:
		return misuse(stderr, err)
	}
	if err := run(ctx, o, stderr); err != nil {
		fmt.Fprintf(stderr, "token-projector: %s\n", projector.Scrub(err.Error()))
		return 1
	}
	return 0
}

func misuse(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "token-projector: %v\n", err)
	return 2
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, usage, (&options{}).flags().FlagUsages())
}

// revision is the commit the binary was built from, if the toolchain knew it.
func revision() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
