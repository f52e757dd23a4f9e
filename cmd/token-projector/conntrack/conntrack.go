// Package conntrack stands in for github.com/mwitkow/go-conntrack, by a replace
// in go.mod, for the one package that imports it: the HTTP client's in
// github.com/prometheus/common/config, which comes with exporter-toolkit and
// which the daemon never calls.
//
//   - The original imports golang.org/x/net/trace, that imports html/template,
//     and with that the linker keeps every exported method of every type: the
//     daemon is 18 MB larger, stripped.
//   - It also puts pages on http.DefaultServeMux and metrics into the default
//     registry.
//   - Here is what that package calls, without tracing and metrics.
package conntrack

import (
	"context"
	"net"
)

// DialFunc dials, as net.Dialer's DialContext does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Option changes which DialFunc NewDialContextFunc returns.
type Option func(*DialFunc)

// DialWithName would name the dialer in metrics.
func DialWithName(string) Option { return func(*DialFunc) {} }

// DialWithTracing would show calls on /debug/events.
func DialWithTracing() Option { return func(*DialFunc) {} }

// DialWithDialContextFunc has f dial instead of a net.Dialer.
func DialWithDialContextFunc(f DialFunc) Option { return func(dial *DialFunc) { *dial = f } }

// NewDialContextFunc is a net.Dialer's DialContext, or what an option gives instead.
func NewDialContextFunc(options ...Option) DialFunc {
	dial := new(net.Dialer).DialContext
	for _, o := range options {
		o(&dial)
	}
	return dial
}
