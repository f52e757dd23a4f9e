package cases

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// Fake is the target of fakeapi servers.
type Fake struct {
	mu      sync.Mutex
	shared  map[*Flags]*fakeServer
	started []*fakeServer
}

// fakeServer is one of them, with a clock that Pass moves.
type fakeServer struct {
	*fakeapi.Server
	moved atomic.Int64 // nanoseconds
}

// Server starts one, unless cases may share one that runs.
func (f *Fake) Server(_ context.Context, flags *Flags, ownClock bool) (Server, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.shared[flags]; s != nil && !ownClock {
		return s, nil
	}
	s := &fakeServer{}
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

// Close ends all servers.
func (f *Fake) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.started {
		s.Close()
	}
}

func (s *fakeServer) options(flags *Flags) fakeapi.Options {
	return fakeapi.Options{
		Now: s.Now, SigningAlg: flags.Algs[0], Issuer: flags.Issuers[0], APIAudiences: flags.APIAudiences,
		MaxTokenExpiration: flags.MaxExpiration, NoExtension: flags.NoExtension,
	}
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

func (s *fakeServer) Sign(alg jose.SignatureAlgorithm, claims any) (string, error) {
	return "", errors.New("the fake cannot sign yet")
}
