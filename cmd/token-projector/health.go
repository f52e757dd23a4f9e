package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/token-projector/token-projector/metrics"
	"github.com/token-projector/token-projector/projector"
)

// answerBound is how long the owner may take to answer a probe.
const answerBound = 2 * time.Second

// health knows which Projector is running, and answers the probes.
type health struct {
	standby   atomic.Bool                         // waiting for the root's lock
	draining  atomic.Bool                         // told to end; the loop has left, the last jobs are ending
	projector atomic.Pointer[projector.Projector] // nil: none is running
	begun     atomic.Bool                         // the root has been there: held, or waited for
	rootErr   atomic.Pointer[error]               // why it is no more; nil: it is
}

// probeTime is how long an answer to a probe may take: answerBound, and to send a line.
const probeTime = 3 * time.Second

// handler serves the probes, on a port of their own: they must not need what
// the metrics may come to need.
func (h *health) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", h.probe(h.healthy))
	mux.HandleFunc("GET /readyz", h.probe(h.ready))
	return mux
}

func (h *health) probe(check func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), answerBound)
		defer cancel()
		if err := check(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	}
}

// healthy: the owner answers, or there is nothing for it to own yet. Who restarts what is not healthy can help with a root
// that must be mounted anew, and with no other that is lost.
func (h *health) healthy(ctx context.Context) error {
	if lost := h.rootErr.Load(); lost != nil && errors.Is(*lost, projector.ErrRootMountDead) {
		return fmt.Errorf("the root is lost: %w", *lost)
	}
	if p := h.projector.Load(); p != nil && !h.draining.Load() && !p.Responsive(ctx) {
		return errors.New("the loop does not answer")
	}
	return nil
}

// ready: the root is ours and the pod list complete, or this is a standby that
// waits for its turn. One failing volume is no reason not to be.
func (h *health) ready(ctx context.Context) error {
	p, lost := h.projector.Load(), h.rootErr.Load()
	switch {
	case h.draining.Load():
		return errors.New("draining")
	case lost != nil:
		return fmt.Errorf("the root is lost: %w", *lost)
	case h.standby.Load():
		return nil
	case p == nil:
		return errors.New("starting")
	case !p.Synced(ctx):
		return errors.New("the pod list is not complete yet")
	}
	return nil
}

// snapshot feeds the metrics; who has no root has nothing to show but that.
func (h *health) snapshot(ctx context.Context) (metrics.Snapshot, bool) {
	if p := h.projector.Load(); p != nil {
		return p.Snapshot(ctx)
	}
	return metrics.Snapshot{RootFailed: h.rootErr.Load() != nil}, true
}
