//go:build outages

package outages

import (
	"context"
	"time"

	"github.com/token-projector/token-projector/test/fakeapi"
)

const terminating = "unable to create new content in namespace default because it is being terminated"

// outage is one way for a server to be out.
type outage struct {
	name string
	// begin starts it and returns what ends it.
	begin func(*node) (end func())
	// granted: TokenRequests are answered meanwhile, so that no token may expire.
	granted bool
	// byToken: the daemon has a token, not a client certificate.
	byToken bool
}

// inject is an outage of all requests, or of TokenRequests alone.
func inject(f fakeapi.Fault) func(*node) func() {
	return func(n *node) func() { return n.api.Inject(f) }
}

func tokens(f fakeapi.Fault) func(*node) func() {
	f.Match = fakeapi.TokenRequests
	return inject(f)
}

func refusing(code int, retryAfter time.Duration) func(*node) func() {
	return tokens(fakeapi.Fault{Action: fakeapi.Fail, Code: code, RetryAfter: retryAfter})
}

// failing watches begin when those that run have ended.
func watches(f fakeapi.Fault) func(*node) func() {
	f.Match.Verb = "watch"
	return func(n *node) func() {
		end := n.api.Inject(f)
		n.api.CutWatches()
		return end
	}
}

// cutting ends all watches each second.
func cutting(also func(*fakeapi.Server)) func(*node) func() {
	return func(n *node) func() {
		ctx, end := context.WithCancel(n.t.Context())
		go func() {
			for ctx.Err() == nil {
				also(n.api)
				n.api.CutWatches()
				select {
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		}()
		return end
	}
}

// refusedCredential ends when there is another one in the daemon's files.
func refusedCredential(n *node) func() {
	first := n.user
	n.api.Inject(fakeapi.Fault{Action: fakeapi.Fail, Code: 401, Match: fakeapi.Match{
		Func: func(r *fakeapi.Request) bool { return r.User == first },
	}})
	return func() { n.identify("second") }
}

func edited(e fakeapi.TokenEdit) func(*node) func() { return tokens(fakeapi.Fault{Token: &e}) }

var outages = []outage{
	{name: "connection refused, watches cut", begin: func(n *node) func() {
		n.must(n.api.GoDown())
		return func() { n.must(n.api.ComeBack()) }
	}},
	{name: "every request reset", begin: inject(fakeapi.Fault{Action: fakeapi.Reset})},
	{name: "reset", begin: tokens(fakeapi.Fault{Action: fakeapi.Reset})},
	{name: "reset in the body", begin: tokens(fakeapi.Fault{Action: fakeapi.ResetBody})},
	{name: "no headers, released at the end", begin: tokens(fakeapi.Fault{Action: fakeapi.Hang})},
	{name: "no headers, never answered", begin: tokens(fakeapi.Fault{Action: fakeapi.Hang, Forever: true})},
	{name: "no body, released at the end", begin: tokens(fakeapi.Fault{Action: fakeapi.HangBody})},
	{name: "no body, never answered", begin: tokens(fakeapi.Fault{Action: fakeapi.HangBody, Forever: true})},
	{name: "half-open: bytes of all connections stop, both ways", begin: func(n *node) func() {
		n.link.freeze()
		return n.link.thaw
	}},
	{name: "half-open: bytes of all connections stop for ever", begin: func(n *node) func() {
		n.link.freeze()
		return n.link.abandon
	}},
	{name: "401", begin: refusing(401, 0)},
	{name: "the client certificate refused, then replaced", begin: refusedCredential},
	{name: "the bearer token refused, then replaced", begin: refusedCredential, byToken: true},
	{name: "403", begin: refusing(403, 0)},
	{name: "403, the namespace terminates", begin: tokens(fakeapi.Fault{Action: fakeapi.Fail, Code: 403, Message: terminating})},
	{name: "404", begin: refusing(404, 0)},
	{name: "409", begin: refusing(409, 0)},
	{name: "422", begin: refusing(422, 0)},
	{name: "429", begin: refusing(429, 0)},
	{name: "429 with Retry-After: 2", begin: refusing(429, 2*time.Second)},
	{name: "500", begin: refusing(500, 0)},
	{name: "503", begin: refusing(503, 0)},
	{name: "504", begin: refusing(504, 0)},
	{name: "garbled answers", begin: tokens(fakeapi.Fault{Action: fakeapi.Garble})},
	{name: "answers of 8 MiB", begin: tokens(fakeapi.Fault{Action: fakeapi.Oversize, Size: 8 << 20})},
	{name: "expired tokens", begin: edited(fakeapi.TokenEdit{Shift: -2 * time.Hour})},
	{name: "tokens not yet valid", begin: edited(fakeapi.TokenEdit{Shift: 2 * time.Hour})},
	{name: "the wrong audience", begin: edited(fakeapi.TokenEdit{Audiences: []string{"elsewhere"}})},
	{name: "tokens of 20 s", begin: edited(fakeapi.TokenEdit{Lifetime: 20 * time.Second}), granted: true},
	{name: "tokens of 48 h", begin: edited(fakeapi.TokenEdit{Lifetime: 48 * time.Hour}), granted: true},
	{name: "watches cut each second", begin: cutting(func(*fakeapi.Server) {}), granted: true},
	{name: "watches cut each second, and 410", begin: cutting((*fakeapi.Server).ExpireResourceVersions), granted: true},
	{name: "watches fall silent", begin: func(n *node) func() {
		n.api.MuteWatches()
		return func() {}
	}, granted: true},
	{name: "watches silent from the start", begin: watches(fakeapi.Fault{Action: fakeapi.HangBody, Forever: true}), granted: true},
	{name: "watches never answered", begin: watches(fakeapi.Fault{Action: fakeapi.Hang, Forever: true}), granted: true},
	{name: "watches 500", begin: watches(fakeapi.Fault{Action: fakeapi.Fail, Code: 500}), granted: true},
}
