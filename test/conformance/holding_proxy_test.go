//go:build e2e

package conformance

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"
)

// holdingProxy stands between a node and the API server, to which it speaks as the node. While a fault lasts it answers no TokenRequest,
// and keeps the connection that it came on: client-go's other requests share it.
type holdingProxy struct {
	node  *rest.Config                  // of whoever is to go through it
	held  atomic.Int64                  // TokenRequests that were not answered, so far
	fault atomic.Pointer[chan struct{}] // closed at the fault's end; nil: there is none
}

// startProxy serves until the test's end. as is who it is to the API server.
func startProxy(t *testing.T, as *rest.Config) *holdingProxy {
	t.Helper()
	target, err := url.Parse(as.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(as)
	if err != nil {
		t.Fatal(err)
	}
	quiet := log.New(io.Discard, "", 0) // of streams that were cut, also by whoever asked
	proxy := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, ErrorLog: quiet}
	p := &holdingProxy{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if over := p.fault.Load(); over != nil && isTokenRequest(r) {
			p.held.Add(1)
			select {
			case <-*over:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler) // resets the stream
		}
		proxy.ServeHTTP(w, r)
	}))
	server.EnableHTTP2, server.Config.ErrorLog = true, quiet
	server.StartTLS()
	t.Cleanup(func() {
		p.lift()
		server.CloseClientConnections() // watches do not end by themselves
		server.Close()
	})
	p.node = &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}}
	return p
}

func isTokenRequest(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/serviceaccounts/") && strings.HasSuffix(r.URL.Path, "/token")
}

// hold begins a fault, and lift ends it; lift does nothing if there is none.
func (p *holdingProxy) hold() {
	over := make(chan struct{})
	p.fault.Store(&over)
}

func (p *holdingProxy) lift() {
	if over := p.fault.Swap(nil); over != nil {
		close(*over)
	}
}
