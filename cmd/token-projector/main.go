// Token-projector keeps the projected ServiceAccount tokens of one node's pods
// fresh on disk.
//
//	token-projector run [flags]             project until SIGTERM or SIGINT
//	token-projector inspect [flags] [POD]   show the tokens below a root, ours or the kubelet's
//	token-projector observe [flags]         export the age of tokens that the kubelet keeps
//	token-projector wait --file PATH        wait until a token is there and fresh
//	token-projector version                 print the version
//	token-projector completion SHELL        print completions for bash, zsh, fish or powershell
//	token-projector help [COMMAND]          print the commands, or one's flags
//
// It exits 0 after a signal, 1 if it could not start or go on, or found what it
// was asked to look for to be wrong, and 2 if its command line is wrong. A
// second signal ends it at once.
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
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/token-projector/token-projector/projector"
)

// version is set by the linker.
var version = "dev"

// garbage is how much garbage may pile up, in percent of what is in use, unless GOGC says: half of Go's own, because what
// a node holds in memory is there all day, and garbage is made only when something changes.
const garbage = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	klog.SetLogger(logr.Discard()) // or client-go writes what a server says to standard error, as it is; run has a log for it
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // the second signal meets the default action
	os.Exit(command(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// A misuse is an error of the command line.
type misuse struct{ error }

// errFound says that what was looked at is not as it should be; what that is has been printed.
var errFound = errors.New("found something wrong")

// command carries out the command line and returns the exit status.
func command(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := commands(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errFound) {
		fmt.Fprintf(stderr, "token-projector: %s\n", projector.Scrub(err.Error()))
	}
	if _, ok := errors.AsType[misuse](err); ok {
		return 2
	}
	return 1
}

// commands is the program's command line.
func commands(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "token-projector",
		Short:         "Keeps the projected ServiceAccount tokens of a node's pods fresh on disk",
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misuse{fmt.Errorf("unknown command %q; try token-projector help", args[0])}
			}
			return c.Help()
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse{err} })
	root.AddCommand(runCommand(), inspectCommand(), observeCommand(), waitCommand(), versionCommand())
	root.SetOut(stdout) // the commands that follow ask for it now
	root.SetErr(stderr)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	strictly(root)
	return root
}

// strictly has cobra's own commands refuse what they do not know; by themselves they print the root's help, and exit 0.
func strictly(root *cobra.Command) {
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Run, c.RunE = nil, help
		case "completion":
			c.Args, c.RunE = noSuchShell, func(c *cobra.Command, _ []string) error { return c.Help() }
			for _, shell := range c.Commands() {
				shell.Args = noArguments
			}
		}
	}
}

func help(c *cobra.Command, args []string) error {
	of, rest, err := c.Root().Find(args)
	if err != nil || len(rest) > 0 {
		return misuse{fmt.Errorf("unknown command %q; try token-projector help", strings.Join(args, " "))}
	}
	of.InitDefaultHelpFlag()
	return of.Help()
}

func noSuchShell(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse{fmt.Errorf("unknown shell %q; try token-projector completion", args[0])}
	}
	return nil
}

// noArguments refuses what is no flag.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse{fmt.Errorf("unexpected argument %q; %s takes flags only", args[0], c.Name())}
	}
	return nil
}

func runCommand() *cobra.Command {
	o := &options{}
	c := &cobra.Command{
		Use:   "run",
		Short: "Project the tokens of this node's pods until SIGTERM",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(os.Getenv); err != nil {
				return misuse{err}
			}
			return run(c.Context(), o, c.ErrOrStderr())
		},
	}
	o.addFlags(c.Flags())
	complete(c, map[string][]string{
		"identity":  identities,
		"volumes":   {string(projector.SelectAll), string(projector.SelectUnmounted)},
		"log-level": {"debug", "info", "warn", "error"}, "log-format": {"json", "console"},
	})
	return c
}

// complete tells shells which values flags have, and that the command itself takes no file.
func complete(c *cobra.Command, values map[string][]string) {
	c.ValidArgsFunction = cobra.NoFileCompletions
	for flag, these := range values {
		if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(these, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // there is no such flag
		}
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "token-projector %s (%s, %s)\n", version, revision(), runtime.Version())
			return err
		},
	}
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
