package cases

import (
	"context"
	"crypto"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// Fake is the target of fakeapi servers.
type Fake struct {
	// KubectlCommand is what Kubectl returns.
	KubectlCommand []string

	mu      sync.Mutex
	keys    map[jose.SignatureAlgorithm]crypto.Signer // of all servers: an RSA key takes long to make
	shared  map[*Flags]*fakeServer
	started []*fakeServer
}

// fakeServer is one of them, with a clock that Pass moves.
type fakeServer struct {
	*fakeapi.Server
	keys  map[jose.SignatureAlgorithm]crypto.Signer
	moved atomic.Int64 // nanoseconds
}

// Server starts one, unless cases may share one that runs.
func (f *Fake) Server(_ context.Context, flags *Flags, ownClock bool) (Server, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.shared[flags]; s != nil && !ownClock {
		return s, nil
	}
	if err := f.makeKeys(); err != nil {
		return nil, err
	}
	s := &fakeServer{keys: f.keys}
	var err error
	if s.Server, err = fakeapi.Start(s.options(flags)); err != nil {
		return nil, err
	}
	f.started = append(f.started, s)
	if !ownClock {
		if f.shared == nil {
			f.shared = map[*Flags]*fakeServer{}
		}
		f.shared[flags] = s
	}
	return s, nil
}

// makeKeys makes the keys once. f is locked.
func (f *Fake) makeKeys() error {
	if f.keys != nil {
		return nil
	}
	f.keys = map[jose.SignatureAlgorithm]crypto.Signer{}
	for _, alg := range []jose.SignatureAlgorithm{jose.RS256, jose.ES256} {
		key, err := fakeapi.NewSigningKey(alg)
		if err != nil {
			return err
		}
		f.keys[alg] = key
	}
	return nil
}

// Kubectl is of the caller's choosing.
func (f *Fake) Kubectl() []string { return f.KubectlCommand }

// Close ends all servers.
func (f *Fake) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.started {
		s.Close()
	}
}

func (s *fakeServer) options(flags *Flags) fakeapi.Options {
	o := fakeapi.Options{
		Now: s.Now, Issuers: flags.Issuers, APIAudiences: flags.APIAudiences, JWKSURI: flags.JWKSURI,
		MaxTokenExpiration: flags.MaxExpiration, NoExtension: flags.NoExtension,
	}
	for _, alg := range flags.Algs {
		o.SigningKeys = append(o.SigningKeys, s.keys[alg])
	}
	return o
}

func (s *fakeServer) Now() time.Time { return time.Now().Add(time.Duration(s.moved.Load())) }

func (s *fakeServer) Pass(_ context.Context, d time.Duration) error {
	s.moved.Add(int64(d))
	return nil
}

func (s *fakeServer) User(name string, groups ...string) (*rest.Config, error) {
	return s.UserConfig(name, groups...)
}

func (s *fakeServer) Bearer(token string) *rest.Config {
	config := s.RESTConfig()
	config.BearerToken = token
	return config
}

func (s *fakeServer) Key(alg jose.SignatureAlgorithm) crypto.Signer { return s.keys[alg] }
