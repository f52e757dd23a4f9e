package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"
)

// options are the flags.
type options struct {
	nodes, pods int
	length      time.Duration
	only, out   string
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "fleet:", err)
		return 2
	}
	if err := playAll(o, stdout); err != nil {
		fmt.Fprintln(stderr, "fleet:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := pflag.NewFlagSet("fleet", pflag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.nodes, "nodes", 1_000, "nodes of the fleet")
	f.IntVar(&o.pods, "pods", 100_000, "pods of the fleet, each with one token")
	f.DurationVar(&o.length, "for", 24*time.Hour, "length of a run, in virtual time")
	f.StringVar(&o.only, "scenario", "", "play this one (default: all)")
	f.StringVar(&o.out, "out", "", "directory for a CSV and a PNG of each scenario (default: none)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.nodes < 1 || o.pods < o.nodes:
		return o, fmt.Errorf("--nodes %d, --pods %d: want a node at least, and a pod on each", o.nodes, o.pods)
	case o.length < 2*time.Hour:
		return o, fmt.Errorf("--for %v: want two hours at least", o.length)
	}
	return o, nil
}

func playAll(o options, stdout io.Writer) error {
	var all []*result
	if o.out != "" {
		if err := os.MkdirAll(o.out, 0o755); err != nil {
			return err
		}
	}
	for _, s := range scenarios(o.nodes, o.pods, o.length) {
		if o.only != "" && o.only != s.name {
			continue
		}
		fmt.Fprintf(stdout, "%s: %s\n", s.name, s.about)
		var beside []*result
		for _, r := range rules {
			beside = append(beside, &result{s, r.name, play(s, r.new)})
		}
		all = append(all, beside...)
		if o.out == "" {
			continue
		}
		if err := errors.Join(writeCSV(o.out, beside), writePlot(o.out, beside)); err != nil {
			return err
		}
	}
	if all == nil {
		return fmt.Errorf("--scenario %q: there is no such scenario", o.only)
	}
	fmt.Fprintln(stdout)
	return printTable(stdout, all)
}
