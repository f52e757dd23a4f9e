package fakeapi

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Request is what the server remembers of one request.
type Request struct {
	// Time of arrival, by the local clock.
	Time time.Time
	// Verb as RBAC names it: get, list, watch, create, update, patch, delete, deletecollection.
	Verb string
	// Group is the API group, "" for v1. Resource is plural; a TokenRequest is a create of serviceaccounts with the
	// subresource token.
	Group, Resource, Subresource string
	// Namespace and Name come from the URL; "" where it has none.
	Namespace, Name string
	// Query is the raw query of the URL.
	Query string
	// User is the authenticated one, whomever it impersonates; "" for one with bad credentials.
	User string
	// UserAgent, ContentType, Accept and Proto are the request's.
	UserAgent, ContentType, Accept, Proto string
	// Code is the status code that was sent, 0 while there is none: it is still held, or was reset.
	Code int
}

// journal remembers requests and issued tokens.
type journal struct {
	mu        sync.Mutex
	requests  []*Request
	tokens    [][]byte
	changed   signal
	forgetful bool
}

func (j *journal) add(r *Request) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.forgetful {
		j.requests = append(j.requests, r)
		j.changed.fire()
	}
}

func (j *journal) answered(r *Request, code int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Code = code
	j.changed.fire()
}

func (j *journal) issued(token string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.forgetful {
		j.tokens = append(j.tokens, []byte(token))
	}
}

// Requests returns all requests so far that match, in order of arrival; a zero Match is all of them.
func (s *Server) Requests(m Match) (out []Request) {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	for _, r := range s.journal.requests {
		if m.matches(r) {
			out = append(out, *r)
		}
	}
	return out
}

// WaitRequests waits until at least n requests match, arrived or (if m.Func looks at Code) answered, and returns them.
func (s *Server) WaitRequests(ctx context.Context, m Match, n int) ([]Request, error) {
	for {
		changed := s.journal.changed.wait()
		got := s.Requests(m)
		if len(got) >= n {
			return got, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return got, fmt.Errorf("wait for %d requests, have %d: %w", n, len(got), context.Cause(ctx))
		}
	}
}

// ForgetRequests empties the record of requests, so that counting starts anew. Tokens are kept.
func (s *Server) ForgetRequests() {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.journal.requests = nil
}

// TokenBytes returns every token string that was ever issued, also those of faults and of answers that were lost
// on the way, so that logs can be searched for them.
func (s *Server) TokenBytes() [][]byte {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	return slices.Clone(s.journal.tokens)
}
