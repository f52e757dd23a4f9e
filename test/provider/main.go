package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/zapr"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/token-projector/token-projector/projector"
)

func main() {
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "provider:", err)
		os.Exit(1)
	}
}

func command(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "run":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return run(ctx, args[1:])
	case len(args) == 2 && args[0] == "enter":
		return enter(args[1])
	case len(args) == 2 && args[0] == "read":
		return read(args[1], os.Stdout)
	}
	return errors.New("usage: provider run FLAGS, or provider read FILE")
}

type options struct{ node, kubeconfig, root, state string }

func parse(args []string) (*options, error) {
	var o options
	f := pflag.NewFlagSet("provider run", pflag.ContinueOnError)
	f.StringVar(&o.node, "node-name", "", "node whose pods to run")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "credentials of that node")
	f.StringVar(&o.root, "root-dir", "", "where the projector publishes the volumes")
	f.StringVar(&o.state, "state-dir", "", "where to remember what runs, and to keep its output")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	for _, value := range []string{o.node, o.kubeconfig, o.root, o.state} {
		if value == "" {
			return nil, errors.New("run needs all of its flags")
		}
	}
	return &o, nil
}

// run provides until ctx ends. The containers run on.
func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	log, err := zap.NewProduction()
	if err != nil {
		return err
	}
	klog.SetLogger(zapr.NewLogger(log.Named("client-go")))
	api, err := connect(o.kubeconfig)
	if err != nil {
		return err
	}
	root, err := projector.OpenRoot(ctx, o.root, func() { log.Info("another process holds the root") })
	if err != nil {
		return err
	}
	defer root.Close()
	p, err := projector.New(projector.Config{
		NodeName: o.node, Root: root, Client: api.projector, Mint: api.mint, AccountUID: api.lookup, Clock: api.clock, AwaitStopped: true, Log: log,
	})
	if err != nil {
		return err
	}
	api.running.Store(p)
	provider := &Provider{projector: p, root: root, processes: processes{dir: o.state}, log: log}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Run(ctx) })
	g.Go(func() error { return newController(o.node, api.own, provider, log).run(ctx) })
	return g.Wait()
}
