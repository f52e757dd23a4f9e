package main

import (
	"context"
	"net"
	"net/http"
	"path"
	"strings"
	"time"
)

// connectionAge is for how long a connection is kept for further requests. After
// that a client must connect anew, with a certificate that is accepted then.
const connectionAge = time.Minute

type acceptedKey struct{}

// withAcceptance notes when a connection was accepted.
func withAcceptance(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, acceptedKey{}, time.Now())
}

// guard lets only plain reading through: GET and HEAD without a body, of a path as it is. No answer repeats what a
// client sent, not even a redirection. Requests that the web config let through come here: to one that no longer asks for what it
// must ask for, nothing is given.
func guard(h http.Handler, c *webConfig) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		secure(w.Header())
		if accepted, ok := r.Context().Value(acceptedKey{}).(time.Time); ok && time.Since(accepted) >= connectionAge {
			w.Header().Set("Connection", "close")
		}
		if r.ContentLength != 0 {
			// The body is not waited for, so that the connection ends with the answer.
			http.NewResponseController(w).SetReadDeadline(time.Now())
		}
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "read only", http.StatusMethodNotAllowed)
		case r.ContentLength != 0:
			http.Error(w, "no body, please", http.StatusRequestEntityTooLarge)
		case r.URL.Path != cleaned(r.URL.Path):
			http.NotFound(w, r)
		case c.strict && r.TLS == nil:
			// The file had no TLS in the moment the server began, although it had before that.
			refuse(w, "the web config had no TLS when this server began; restart it")
		case c.check() != nil && c.strict:
			http.Error(w, "the web config is bad", http.StatusForbidden)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// refuse also ends the connection, so that the client connects and says who it is anew.
func refuse(w http.ResponseWriter, why string) {
	w.Header().Set("Connection", "close")
	http.Error(w, why, http.StatusForbidden)
}

// secure sets headers for browsers, those that the operator did not set otherwise.
func secure(h http.Header) {
	for k, v := range map[string]string{
		"Cache-Control":           "no-store",
		"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
		"X-Content-Type-Options":  "nosniff",
	} {
		if h.Get(k) == "" {
			h.Set(k, v)
		}
	}
}

// cleaned is the path that ServeMux would send a client to.
func cleaned(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}
