package fakeapi

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Match chooses requests. Empty fields match everything; all given ones must hold.
type Match struct {
	Verb, Resource, Subresource, Namespace, Name string
	// Func, when set, must agree as well. It must not call the server or change the request.
	Func func(*Request) bool
}

// TokenRequests matches every TokenRequest.
var TokenRequests = Match{Verb: "create", Resource: "serviceaccounts", Subresource: "token"}

func (m Match) matches(r *Request) bool {
	fits := func(want, got string) bool { return want == "" || want == got }
	return fits(m.Verb, r.Verb) && fits(m.Resource, r.Resource) && fits(m.Subresource, r.Subresource) &&
		fits(m.Namespace, r.Namespace) && fits(m.Name, r.Name) && (m.Func == nil || m.Func(r))
}

// Action is what a fault does to a request.
type Action int

const (
	// Pass answers as if there were no fault: for faults that are only a Latency or a Token.
	Pass Action = iota
	// Fail answers with Fault.Code and a Status.
	Fail
	// Reset resets the TCP connection before any answer; over HTTP/2 this hits all requests on it.
	Reset
	// ResetBody sends the headers and half of the body (for a watch: nothing of it), then resets the connection.
	ResetBody
	// Hang sends nothing, not even headers, until the fault is removed; then it answers.
	Hang
	// HangBody sends the headers and half of the body (for a watch: nothing of it), and the rest when the fault is removed.
	HangBody
	// Garble answers 200 (or 201) with the right content type and a body that no client can decode.
	Garble
	// Oversize answers with a body grown to at least Fault.Size bytes: a longer token, else an annotation.
	Oversize
)

// Fault is something that goes wrong with the requests that match.
type Fault struct {
	Match Match
	// Times is how many requests it hits; 0 is all, until it is removed.
	Times int
	// Latency passes before anything else happens.
	Latency time.Duration
	Action  Action
	// Executed carries the request out, although Fail, Reset, Hang and so on then hide it from the client: "done, but
	// reported as failed". A hung request is carried out before it is held, not after. For Pass and the faults of the
	// body it is always so. It means nothing for watches.
	Executed bool
	// Forever keeps what Hang and HangBody hold even when the fault is removed, until the client or the server gives up.
	Forever bool

	// Code, Reason and Message make the Status of Fail. An empty Reason is the usual one of the code.
	Code    int
	Reason  metav1.StatusReason
	Message string
	// RetryAfter, rounded up to seconds, is sent as a header and in the Status if it is above 0.
	RetryAfter time.Duration

	// Token changes the answer to a TokenRequest.
	Token *TokenEdit
	// Size is Oversize's, in bytes.
	Size int
}

// TokenEdit changes tokens as they are signed: what comes out is properly signed and wrong. Zero fields change nothing.
type TokenEdit struct {
	// Shift moves iat, nbf, exp, warnafter and the answer's times: minus two hours gives a token that has expired,
	// plus one hour one that is not valid yet.
	Shift time.Duration
	// Lifetime replaces the lifetime asked for, in the token and in the answer, without bounds or extension.
	Lifetime time.Duration
	// Audiences replaces the aud of the token and of the answer.
	Audiences []string
	// Raw replaces the signed string: what is no JWT at all.
	Raw func(token string) string
}

// faults are the active ones, in order of their making; the first that matches a request hits it.
type faults struct {
	mu     sync.Mutex
	active []*armed
}

// armed is a fault at work.
type armed struct {
	Fault
	left    int             // hits left when Times is above 0
	removed context.Context // done when it is
	remove  func()
}

// Inject makes the fault active. remove takes it away and lets go what it holds; it may be called more than once.
// Several faults can be active; the first injected one that matches hits, alone.
func (s *Server) Inject(f Fault) (remove func()) {
	a := &armed{Fault: f, left: f.Times}
	a.removed, a.remove = context.WithCancel(context.Background())
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.active = append(s.faults.active, a)
	return a.remove
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	for _, a := range s.faults.active {
		a.remove()
	}
}

// take finds the fault that hits r. A fault used up hits no more, yet it holds what it holds until it is removed.
func (f *faults) take(r *Request) *armed {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active = slices.DeleteFunc(f.active, func(a *armed) bool { return a.removed.Err() != nil })
	for _, a := range f.active {
		if (a.Times == 0 || a.left > 0) && a.Match.matches(r) {
			a.left--
			return a
		}
	}
	return pass
}

// pass is the fault of a request that no other hits.
var pass = &armed{}

// hold waits until the fault is removed.
func (c *call) hold() {
	until := c.fault.removed
	if c.fault.Forever {
		until = context.Background()
	}
	select {
	case <-until.Done():
	case <-c.r.Context().Done():
		c.abort()
	}
}

// before plays the part of the fault that comes before any answer. An error is the answer.
func (c *call) before() error {
	if c.fault.Latency > 0 {
		select {
		case <-time.After(c.fault.Latency):
		case <-c.r.Context().Done():
			c.abort()
		}
	}
	if c.fault.Executed && c.Verb != "watch" {
		return nil // the fault strikes in reply
	}
	return c.strike()
}

// strike plays Fail, Reset and Hang; what is left over is for the body.
func (c *call) strike() error {
	switch c.fault.Action {
	case Fail:
		return c.failure()
	case Reset:
		c.reset()
	case Hang:
		c.hold()
	}
	return nil
}

// interrupt sends what has been written so far, and plays ResetBody and HangBody.
func (c *call) interrupt() {
	c.flush()
	switch c.fault.Action {
	case ResetBody:
		c.reset()
	case HangBody:
		c.hold()
	}
}

// reset cuts the TCP connection with a RST and ends the handler.
func (c *call) reset() {
	if conn, ok := c.r.Context().Value(connKey{}).(*tls.Conn); ok {
		tcp := conn.NetConn().(*net.TCPConn)
		_ = tcp.SetLinger(0) // on failure it is a FIN instead, and still an end
		tcp.Close()
	}
	c.abort()
}

// abort ends the handler without an answer, or in the middle of one.
func (c *call) abort() { panic(http.ErrAbortHandler) }

// failure is the Status that Fail sends; what the fault leaves open is the library's for the code.
func (c *call) failure() error {
	f := c.fault
	retry := int((f.RetryAfter + time.Second - 1) / time.Second)
	resource := schema.GroupResource{Group: c.Group, Resource: c.Resource}
	err := apierrors.NewGenericServerResponse(f.Code, c.r.Method, resource, c.Name, f.Message, retry, false)
	st := &err.ErrStatus
	st.Reason = cmp.Or(f.Reason, st.Reason, metav1.StatusReasonUnknown)
	st.Message = cmp.Or(f.Message, st.Message)
	return err
}
