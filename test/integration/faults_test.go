package integration

import (
	"net/http"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// The lifetime of every token in the tests of faults: long enough to be alive
// after a fault, short enough to wait for its refresh.
const faultTTL = 8 * time.Second

// fault is one way for TokenRequests to go wrong.
type fault struct {
	name  string
	fault fakeapi.Fault
	// code is the metric label under which the requests count; "" if they succeed.
	code string
}

func tokenFaults() []fault {
	fail := func(name string, code int, label string, after time.Duration) fault {
		return fault{name, fakeapi.Fault{Action: fakeapi.Fail, Code: code, RetryAfter: after}, label}
	}
	edit := func(name string, e fakeapi.TokenEdit) fault {
		return fault{name, fakeapi.Fault{Token: &e}, "unusable"}
	}
	return []fault{
		{"latency", fakeapi.Fault{Latency: time.Second}, ""},
		fail("401", http.StatusUnauthorized, "401", 0),
		fail("403", http.StatusForbidden, "403", 0),
		fail("404", http.StatusNotFound, "404", 0),
		fail("409", http.StatusConflict, "409", 0),
		fail("422", http.StatusUnprocessableEntity, "422", 0),
		fail("429", http.StatusTooManyRequests, "429", 0),
		fail("429 with Retry-After", http.StatusTooManyRequests, "429", 2*time.Second),
		fail("500", http.StatusInternalServerError, "500", 0),
		fail("503", http.StatusServiceUnavailable, "503", 0),
		fail("504", http.StatusGatewayTimeout, "504", 0),
		{"500 but done", fakeapi.Fault{Action: fakeapi.Fail, Code: 500, Executed: true}, "500"},
		{"reset", fakeapi.Fault{Action: fakeapi.Reset}, "none"},
		{"reset but done", fakeapi.Fault{Action: fakeapi.Reset, Executed: true}, "none"},
		{"reset in the body", fakeapi.Fault{Action: fakeapi.ResetBody}, "none"},
		{"hang", fakeapi.Fault{Action: fakeapi.Hang, Forever: true}, "none"},
		{"hang in the body", fakeapi.Fault{Action: fakeapi.HangBody, Forever: true}, "none"},
		{"garbled", fakeapi.Fault{Action: fakeapi.Garble}, "none"},
		{"oversized", fakeapi.Fault{Action: fakeapi.Oversize, Size: 8 << 20}, "none"},
		edit("expired", fakeapi.TokenEdit{Shift: -2 * time.Hour}),
		edit("not yet valid", fakeapi.TokenEdit{Shift: 2 * time.Hour}),
		edit("wrong audience", fakeapi.TokenEdit{Audiences: []string{"elsewhere"}}),
		edit("empty", fakeapi.TokenEdit{Raw: func(string) string { return "" }}),
	}
}

// TestTokenRequestFaults: whatever goes wrong with TokenRequests, what is on
// disk stays as it is, and is renewed once they go right again.
func TestTokenRequestFaults(t *testing.T) {
	for _, f := range tokenFaults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{MaxTokenExpiration: faultTTL})
			d := w.start()
			pods := []*corev1.Pod{w.pod("demo", "a"), w.pod("other", "b", tokenVolume("vault", "vault", 600))}
			w.waitPublished(pods...)
			f.fault.Match = fakeapi.TokenRequests
			remove := w.api.Inject(f.fault)
			w.api.ForgetRequests()
			if _, err := w.api.WaitRequests(t.Context(), fakeapi.TokenRequests, 2); err != nil {
				t.Fatal(err)
			}
			if f.code != "" {
				eventually(t, "a failure with code "+f.code, func() bool {
					return d.metric("token_projector_token_requests_total", "code", f.code) >= 1
				})
				if d.metric("token_projector_last_token_request_failure_timestamp_seconds") == 0 {
					t.Error("no time of the last failure")
				}
			}
			if d.probe("/readyz") != http.StatusOK || d.probe("/healthz") != http.StatusOK {
				t.Error("failing token requests make the daemon unready or unhealthy")
			}
			before := w.contents(pods...) // fails if a token is gone
			remove()
			w.waitRenewed(before, pods...)
			eventually(t, "all fresh", func() bool { return d.metric("token_projector_tokens", "state", "fresh") == 3 })
			eventually(t, "no errors", func() bool { return d.metric("token_projector_volume_errors") <= 0 })
			d.Terminate()
		})
	}
}

// TestFirstRequestFaults: a pod that starts during a fault gets its token once
// it is over.
func TestFirstRequestFaults(t *testing.T) {
	for _, f := range tokenFaults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{})
			f.fault.Match = fakeapi.TokenRequests
			f.fault.Times = 2
			w.api.Inject(f.fault)
			d := w.start()
			pod := w.pod("demo", "a")
			w.waitPublished(pod)
			d.Terminate()
		})
	}
}

// TestServerDown: connections refused, then the server is back; pods that were
// created and deleted meanwhile are taken in.
func TestServerDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: faultTTL})
	d := w.start()
	stays, goes := w.pod("demo", "stays"), w.pod("demo", "goes")
	w.waitPublished(stays, goes)
	if err := w.api.GoDown(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "failed requests", func() bool {
		return d.metric("token_projector_token_requests_total", "code", "none") >= 2
	})
	before := w.contents(stays)
	comes := w.pod("demo", "comes")
	if err := w.api.Delete(goes, atOnce()); err != nil {
		t.Fatal(err)
	}
	if err := w.api.ComeBack(); err != nil {
		t.Fatal(err)
	}
	w.waitRenewed(before, stays)
	w.waitPublished(comes)
	eventually(t, "removal", func() bool { _, err := os.Stat(w.path(goes, "", "")); return os.IsNotExist(err) })
	d.Terminate()
}

// TestWatchFaults: the pods on disk follow the API through broken watches.
func TestWatchFaults(t *testing.T) {
	for name, o := range map[string]fakeapi.Options{"streaming list": {}, "list": {NoWatchList: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, o)
			d := w.start()
			harm := []struct {
				name string
				do   func() (undo func())
			}{
				{"none", func() func() { return func() {} }},
				{"cut", func() func() { w.api.CutWatches(); return func() {} }},
				{"410", func() func() {
					w.api.ExpireResourceVersions()
					w.api.CutWatches()
					return func() {}
				}},
				{"pods cannot be watched", func() func() {
					undo := w.api.Inject(fakeapi.Fault{Match: fakeapi.Match{Verb: "watch", Resource: "pods"}, Action: fakeapi.Fail, Code: 500})
					w.api.CutWatches()
					return undo
				}},
				{"pods cannot be listed", func() func() {
					undo := w.api.Inject(fakeapi.Fault{Match: fakeapi.Match{Resource: "pods"}, Action: fakeapi.Reset, Times: 3})
					w.api.ExpireResourceVersions()
					w.api.CutWatches()
					return undo
				}},
			}
			last := w.pod("demo", "zero")
			w.waitPublished(last)
			for i, h := range harm {
				undo := h.do()
				next := w.pod("demo", "pod-"+string(rune('a'+i)))
				if err := w.api.Delete(last, atOnce()); err != nil {
					t.Fatal(err)
				}
				undo()
				w.waitPublished(next)
				eventually(t, h.name+": removal", func() bool { _, err := os.Stat(w.path(last, "", "")); return os.IsNotExist(err) })
				last = next
			}
			d.Terminate()
		})
	}
}

// TestOneNamespaceFails: a namespace whose every request fails, and one whose
// requests hang, delay nobody else.
func TestOneNamespaceFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 10 * time.Second})
	for namespace, f := range map[string]fakeapi.Fault{
		"broken": {Action: fakeapi.Fail, Code: 500},
		"hung":   {Action: fakeapi.Hang, Forever: true},
	} {
		f.Match = fakeapi.TokenRequests
		f.Match.Namespace = namespace
		w.api.Inject(f)
	}
	d := w.start()
	for _, name := range []string{"a", "b", "c"} {
		w.pod("broken", name)
		w.pod("hung", name)
	}
	var paths []string
	for _, name := range []string{"a", "b", "c"} {
		pod := w.pod("well", name)
		w.waitPublished(pod)
		paths = append(paths, w.tokens(pod)...)
	}
	r := startReader(time.Now, paths...)
	eventually(t, "rotations beside failing neighbours", func() bool { return r.rotations() >= 3 })
	r.stop(t)
	if d.metric("token_projector_tokens", "state", "pending") != 6 {
		t.Error("the failing namespaces' tokens are not pending")
	}
	d.Terminate()
}
