package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/token-projector/token-projector/projector"
)

// statusPath is where the status is as JSON.
const statusPath = "/api/v1/status"

// statusInFlight is how many are told the status at once, as are scraped: each holds a copy of everything until the last byte is sent.
const statusInFlight = 4

// statusAnswer is what statusPath answers; docs/status.schema.json describes it.
type statusAnswer struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	// Phase is running; standby, while another process holds the root; or starting, which a lost root is, too.
	Phase string `json:"phase"`
	// Status is of a Projector that is running; absent otherwise.
	*projector.Status
}

// status asks the Projector that is running, if any is.
func (h *health) status(ctx context.Context, node string) (statusAnswer, error) {
	a := statusAnswer{Node: node, Version: version, Phase: "starting"}
	p := h.projector.Load()
	switch {
	case h.standby.Load():
		a.Phase = "standby"
	case p != nil:
		ctx, cancel := context.WithTimeout(ctx, answerBound)
		defer cancel()
		s, err := p.Status(ctx)
		if err != nil {
			return a, err
		}
		a.Phase, a.Status = "running", &s
	}
	return a, nil
}

// handleStatus serves the status as JSON and as a page. Both name pods, so that where metrics are open to everybody they are
// for this machine, or pod, alone.
func handleStatus(mux *http.ServeMux, o *options, h *health) {
	places := make(chan struct{}, statusInFlight)
	serve := func(answer func(http.ResponseWriter, statusAnswer) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !o.maySeeStatus(r) {
				refuse(w, "the status names pods, and this address need not ask who you are: ask from loopback (kubectl port-forward), by an IP address or localhost; or use --web-config-file without --metrics-insecure")
				return
			}
			select {
			case places <- struct{}{}:
				defer func() { <-places }()
			default:
				http.Error(w, "others are being answered; ask again", http.StatusServiceUnavailable)
				return
			}
			a, err := h.status(r.Context(), o.nodeName)
			if err != nil {
				http.Error(w, "the loop does not answer", http.StatusServiceUnavailable)
				return
			}
			_ = answer(w, a) // the client has gone
		}
	}
	mux.HandleFunc("GET "+statusPath, serve(func(w http.ResponseWriter, a statusAnswer) error {
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(a)
	}))
	mux.HandleFunc("GET /{$}", serve(func(w http.ResponseWriter, a statusAnswer) error {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", pagePolicy)
		return page(a).Render(w)
	}))
}

// maySeeStatus reports whether a request may be told the names of pods. A web config is enough where it must ask clients who they are;
// on loopback, or with --metrics-insecure, it need not. By a name other than this machine's own, a web page elsewhere may have led a browser here.
func (o *options) maySeeStatus(r *http.Request) bool {
	if o.secureMetrics() {
		return true
	}
	host := (&url.URL{Host: r.Host}).Hostname()
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	_, named := netip.ParseAddr(host)
	return err == nil && from.Addr().Unmap().IsLoopback() && (named == nil || host == "localhost")
}
