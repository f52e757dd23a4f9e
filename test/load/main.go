package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// options are the flags.
type options struct {
	daemon, server             string // paths of the two programs
	kubeconfig, nodeKubeconfig string // of a real server: who makes the pods, and who the daemon is; "": the fake one
	node                       string
	pods                       []int
	length                     time.Duration
	rounds, fresh, rate        int
	out                        string
}

// play is one of the subcommands.
type play func(context.Context, *options, io.Writer) error

var plays = map[string]struct {
	play play
	pods []int
	long time.Duration
}{
	"pressed": {playPressed, []int{1_000}, 5 * time.Minute},
	"node":    {playNode, []int{110, 1_000, 10_000}, 90 * time.Second},
	"burst":   {playBurst, []int{110, 250}, 0},
}

func main() {
	// The children die with the thread that started them (Pdeathsig), so this goroutine, which starts all, keeps it for good.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal kills
	allowDescriptors()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// allowDescriptors lets the daemon have as many as container runtimes give, if that may be: it holds two for each volume.
func allowDescriptors() {
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}) // if not, the table says so
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	play, o, err := parse(args, stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 2
	}
	if err := play(ctx, o, stdout); err != nil {
		fmt.Fprintln(stderr, "load:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (play, *options, error) {
	if len(args) == 0 {
		return nil, nil, errors.New("which one: node, burst or pressed?")
	}
	p, ok := plays[args[0]]
	if !ok {
		return nil, nil, fmt.Errorf("%q: there are node, burst and pressed", args[0])
	}
	o := &options{rounds: 1, rate: 1} // of the other subcommands
	f := pflag.NewFlagSet("load "+args[0], pflag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.daemon, "daemon", "bin/token-projector", "path of token-projector")
	f.StringVar(&o.server, "fake-apiserver", "bin/fake-apiserver", "path of fake-apiserver")
	f.IntSliceVar(&o.pods, "pods", p.pods, "pods of the node, each with two tokens: a column or a row for each number")
	f.StringVar(&o.node, "node", "load", "name of the node")
	if args[0] == "burst" {
		f.StringVar(&o.kubeconfig, "kubeconfig", "", "a real server's administrator, who makes the pods (default: the fake server)")
		f.StringVar(&o.nodeKubeconfig, "node-kubeconfig", "", "the node on that server, whom the daemon is")
		f.IntVar(&o.rounds, "rounds", 5, "bursts of each size")
	} else {
		f.DurationVar(&o.length, "for", p.long, "length of the part that is watched, for each number of pods")
	}
	if args[0] == "pressed" {
		f.IntVar(&o.fresh, "fresh", 250, "pods that come while tokens are due")
		f.IntVar(&o.rate, "rate", 50, "TokenRequests that the server grants per second")
	}
	f.StringVar(&o.out, "out", "", "directory for plots, and the daemons' log (default: none)")
	if err := f.Parse(args[1:]); err != nil {
		return nil, nil, err
	}
	if f.NArg() > 0 {
		return nil, nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return p.play, o, o.check(p.long > 0)
}

func (o *options) check(long bool) error {
	for _, n := range o.pods {
		if n < 1 || n > 20_000 {
			return fmt.Errorf("--pods %d: must be from 1 to 20000", n)
		}
	}
	if long && o.length < 10*time.Second {
		return fmt.Errorf("--for %v: must be 10s at least", o.length)
	}
	if (o.kubeconfig == "") != (o.nodeKubeconfig == "") {
		return errors.New("--kubeconfig and --node-kubeconfig belong together")
	}
	if o.rate < 1 || o.fresh < 0 || o.rounds < 1 {
		return fmt.Errorf("--rate %d, --fresh %d, --rounds %d: too small", o.rate, o.fresh, o.rounds)
	}
	if o.out != "" {
		return errors.Join(os.MkdirAll(o.out, 0o755), os.RemoveAll(filepath.Join(o.out, daemonLog)))
	}
	return nil
}
