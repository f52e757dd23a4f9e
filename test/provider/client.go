package main

import (
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/rotation"
)

// api is what the provider has of the API server.
type api struct {
	own       kubernetes.Interface // of the provider itself
	projector *projector.Client    // of the Projector, which hears the server's time in its answers
	mint      projector.Mint
	lookup    projector.AccountUID
	clock     rotation.Clock
	running   atomic.Pointer[projector.Projector] // nil: not yet
}

func connect(kubeconfig string) (*api, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // the Projector bounds its requests itself
	a := &api{clock: rotation.SystemClock()}
	if a.own, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	hearing := rest.CopyConfig(config)
	hearing.WarningHandler = rest.NoWarnings{}
	hearing.Wrap(func(rt http.RoundTripper) http.RoundTripper { return projector.HearServer(rt, a.clock, a.hear) })
	if a.projector, err = projector.NewClient(hearing); err != nil {
		return nil, err
	}
	core := a.projector.Core
	a.mint, a.lookup = projector.NewMint(core, 10*time.Second), projector.NewAccountUID(core, 10*time.Second)
	return a, nil
}

func (a *api) hear(server time.Time, sent, received rotation.Time) {
	if p := a.running.Load(); p != nil {
		p.Hear(server, sent, received)
	}
}
