package cases

import (
	"bytes"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// flakyProxy is a proxy, without TLS, that cuts watches at random places, and lets each client's first watch that goes on
// from a version begin at version 1 instead, so that the server itself says that this is too old.
type flakyProxy struct {
	*httptest.Server
	cuts, expired atomic.Int32

	mu     sync.Mutex // guards what follows
	random *rand.Rand
	again  map[string]bool // user agents whose watch went on once
}

func newFlakyProxy(w *World) *flakyProxy {
	target, err := url.Parse(w.Admin.Host)
	w.must(err)
	transport, err := rest.TransportFor(w.Admin)
	w.must(err)
	p := &flakyProxy{random: rand.New(rand.NewPCG(stormSeed, 0)), again: map[string]bool{}}
	silent := log.New(io.Discard, "", 0) // of what it does on purpose
	p.Server = httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: silent,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("Accept-Encoding", "identity") // the real server compresses even watches
			p.rewrite(r.Out)
		},
		ModifyResponse: func(resp *http.Response) error { p.limit(resp); return nil },
	})
	p.Config.ErrorLog = silent
	p.Start()
	return p
}

func isWatch(q url.Values) bool { return q.Get("watch") != "" }

func (p *flakyProxy) rewrite(r *http.Request) {
	q := r.URL.Query()
	if !isWatch(q) || q.Has("sendInitialEvents") {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.again[r.UserAgent()] {
		p.again[r.UserAgent()] = true
		q.Set("resourceVersion", "1")
		r.URL.RawQuery = q.Encode()
	}
}

// limit lets a watch live for some bytes, which count from the end of a streaming list. They hold at least one event: to an
// informer, a watch that ends at once without any is an error.
func (p *flakyProxy) limit(resp *http.Response) {
	q := resp.Request.URL.Query()
	if !isWatch(q) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &cutBody{ReadCloser: resp.Body, p: p, left: 8_000 + p.random.IntN(30_000), listing: q.Has("sendInitialEvents"), end: io.EOF}
	if p.random.IntN(2) == 0 {
		b.end = io.ErrUnexpectedEOF // the proxy then cuts its client's connection
	}
	resp.Body = b
}

type cutBody struct {
	io.ReadCloser
	p       *flakyProxy
	left    int
	listing bool
	end     error
}

func (b *cutBody) Read(to []byte) (int, error) {
	if b.left <= 0 {
		b.p.cuts.Add(1)
		return 0, b.end
	}
	if !b.listing {
		to = to[:min(len(to), b.left)]
	}
	n, err := b.ReadCloser.Read(to)
	if !b.listing {
		b.left -= n
	}
	b.listing = b.listing && !bytes.Contains(to[:n], []byte(metav1.InitialEventsAnnotationKey))
	if bytes.Contains(to[:n], []byte("too old resource version: 1 (")) {
		b.p.expired.Add(1)
	}
	return n, err
}
