package fakeapi

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Options of a server. The zero value is a server as most clusters run one.
type Options struct {
	// Listen is the TCP address; "" is 127.0.0.1:0. It should be loopback.
	Listen string
	// Node is the node whose credentials WriteKubeconfig writes, and the one Node object at the start.
	// "" is node-1.
	Node string
	// Now is the server's clock: it stamps Date headers, objects and tokens. It may jump while the server runs,
	// and is called from many goroutines. Nil is time.Now. Timers (grace periods, watch timeouts) do not use it.
	Now func() time.Time

	// SigningKeys: the first one signs tokens, those of all are accepted. They are RSA, or ECDSA on P-256. Nil is
	// a new one for ES256, which is much faster than RS256. SetSigningKeys changes them.
	SigningKeys []crypto.Signer
	// Issuers: the first one is the iss of tokens, those of all are accepted. Nil is
	// https://kubernetes.default.svc.cluster.local. SetIssuers changes them.
	Issuers []string
	// JWKSURI is where discovery says that the keys are; "" is the server's own.
	JWKSURI string
	// APIAudiences are the audiences of the API itself, given to a request that names none. Nil is all issuers.
	APIAudiences []string
	// MaxTokenExpiration shortens longer lifetimes; 0 is off. Unlike the real flag, which refuses less than an hour,
	// any whole number of seconds will do, so that a demonstration rotates while one looks.
	MaxTokenExpiration time.Duration
	// NoExtension switches off the year that pod-bound API tokens of exactly 3607 s really live.
	NoExtension bool

	// NoWatchList makes the server refuse sendInitialEvents, as an old one does, so that clients fall back to LIST.
	NoWatchList bool
	// NoAPIAccessVolume switches off the injection of kube-api-access volumes into new pods.
	NoAPIAccessVolume bool
	// FinalizePods removes terminating pods by itself when their grace is over. Otherwise they wait, as they wait for
	// a kubelet, for a DELETE with grace 0.
	FinalizePods bool
	// BookmarkInterval is the time between bookmarks of a quiet watch; 0 is a minute.
	BookmarkInterval time.Duration
	// History is the least number of events per resource that can be watched from the past; 0 is 16384.
	History int
	// Forgetful keeps neither Requests nor TokenBytes, for programs that run for days.
	Forgetful bool
}

// Server is a running API server. All its methods may be called from any goroutine.
type Server struct {
	opts    Options
	now     func() time.Time
	store   *store
	pki     *pki
	journal journal
	faults  faults
	addr    string
	cut     signal // of watches
	mute    signal // of watches

	mu       sync.Mutex // guards what follows
	issuing  identity
	http     *http.Server
	listener *net.TCPListener
	port     *os.File // the listener's, while the server plays dead
	closed   bool
	running  sync.WaitGroup

	ctx  context.Context // of all requests
	stop context.CancelFunc
}

// Start makes keys and certificates, fills the store with the namespaces of an empty cluster and one node, and serves.
// The caller must Close the server.
func Start(opts Options) (*Server, error) {
	if err := errors.Join(opts.setDefaults(), opts.validate()); err != nil {
		return nil, err
	}
	s := &Server{opts: opts, now: opts.Now, store: newStore(opts.History, newResources())}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.journal.forgetful = opts.Forgetful
	var err error
	s.SetIssuers(opts.Issuers[0], opts.Issuers[1:]...)
	if err = s.SetSigningKeys(opts.SigningKeys[0], opts.SigningKeys[1:]...); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", opts.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s.addr = l.Addr().String()
	if s.pki, err = newPKI(l.Addr(), opts.Node); err == nil {
		err = s.seed()
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s.serve(l)
	return s, nil
}

func (o *Options) setDefaults() error {
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:0")
	o.Node = cmp.Or(o.Node, "node-1")
	o.BookmarkInterval = cmp.Or(o.BookmarkInterval, time.Minute)
	o.History = cmp.Or(o.History, 16384)
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(o.Issuers) == 0 {
		o.Issuers = []string{"https://kubernetes.default.svc.cluster.local"}
	}
	if len(o.SigningKeys) > 0 {
		return nil
	}
	key, err := NewSigningKey(jose.ES256)
	o.SigningKeys = []crypto.Signer{key}
	return err
}

func (o *Options) validate() error {
	switch {
	case o.MaxTokenExpiration < 0 || o.MaxTokenExpiration%time.Second != 0:
		return fmt.Errorf("maximum token expiration %v: must be 0 or a whole number of seconds", o.MaxTokenExpiration)
	case o.History < 0:
		return fmt.Errorf("history %d: must not be negative", o.History)
	case o.BookmarkInterval < 0:
		return fmt.Errorf("bookmark interval %v: must not be negative", o.BookmarkInterval)
	}
	return nil
}

func (s *Server) seed() error {
	for _, ns := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		if err := s.AddNamespace(ns); err != nil {
			return err
		}
	}
	_, err := Create(s, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.opts.Node}})
	return err
}

func (s *Server) newHTTP() *http.Server {
	return &http.Server{
		Handler:  http.HandlerFunc(s.handle),
		ErrorLog: log.New(io.Discard, "", 0), // refused handshakes and aborted requests are what tests are made of
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{s.pki.server},
			ClientAuth:   tls.RequestClientCert, // a foreign certificate is a 401, not a failed handshake
			NextProtos:   []string{"h2", "http/1.1"},
			MinVersion:   tls.VersionTLS12,
		},
		BaseContext: func(net.Listener) context.Context { return s.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
}

type connKey struct{}

// serve must not race with Close or GoDown: both go through the mutex.
func (s *Server) serve(l net.Listener) {
	server := s.newHTTP()
	s.listener, s.http = l.(*net.TCPListener), server
	s.running.Go(func() { _ = server.ServeTLS(l, "", "") }) // ends when it is closed, with an error that says only that
}

// URL is the server's address as a kubeconfig has it.
func (s *Server) URL() string { return "https://" + s.addr }

// GoDown closes the port and cuts all connections: clients are refused until ComeBack. The objects stay.
func (s *Server) GoDown() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.port != nil {
		return nil
	}
	if s.port, err = s.listener.File(); err != nil {
		return err
	}
	// The socket stays, bound and deaf: nobody else gets the port, not even a connection for its own end.
	fd := int(s.port.Fd())
	addr, err := unix.Getsockname(fd)
	err = errors.Join(err, unix.Shutdown(fd, unix.SHUT_RD), s.http.Close())
	if lost := unix.Bind(fd, addr); lost != unix.EINVAL { // which says that it is bound still, as of a chosen port
		err = errors.Join(err, lost)
	}
	return err
}

// ComeBack listens again on the same port.
func (s *Server) ComeBack() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.port == nil {
		return nil
	}
	err := unix.Listen(int(s.port.Fd()), unix.SOMAXCONN)
	l, err2 := net.FileListener(s.port)
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("come back: %w", err)
	}
	s.port.Close()
	s.port = nil
	s.serve(l)
	return nil
}

// CutWatches ends all watch streams now. Their clients may come back at once.
func (s *Server) CutWatches() { s.cut.fire() }

// MuteWatches has the watch streams that run now send nothing more, no bookmark either, and last until their clients go.
func (s *Server) MuteWatches() { s.mute.fire() }

// ExpireResourceVersions forgets all history: watches that run go on, but a new one from any resource version seen so
// far gets 410. Call CutWatches afterwards to make clients notice.
func (s *Server) ExpireResourceVersions() {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.expire()
}

// Close ends everything and waits for it: held requests, watches, handlers. Further calls do nothing.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.port.Close() // of none, too
	s.mu.Unlock()
	s.stop()
	s.http.Close()
	s.running.Wait()
}

// after runs f with the store locked, some time from now, unless the server closes first.
func (s *Server) after(d time.Duration, f func()) {
	if !s.enter() {
		return
	}
	go func() {
		defer s.running.Done()
		select {
		case <-time.After(d):
			s.store.mu.Lock()
			defer s.store.mu.Unlock()
			f()
		case <-s.ctx.Done():
		}
	}()
}

// enter counts a handler in, or another user of the store; false means that the server is closing.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.running.Add(1)
	return true
}
