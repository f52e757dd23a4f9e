package fakeapi

import (
	"crypto"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// eachAlgorithm runs f for the algorithms that tokens are signed with, each with a key: an RSA key takes a tenth of a second and more to make.
func eachAlgorithm(b *testing.B, f func(*testing.B, Options)) {
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256} {
		key, err := NewSigningKey(alg)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(string(alg), func(b *testing.B) { f(b, Options{SigningKeys: []crypto.Signer{key}, Forgetful: true}) })
	}
}

// BenchmarkFirstToken is a new server, a client of it, and the first token: what a test waits for before it begins.
func BenchmarkFirstToken(b *testing.B) {
	eachAlgorithm(b, func(b *testing.B, opts Options) {
		for b.Loop() {
			s := start(b, opts)
			mustToken(b, s, "default", podTokenRequest(mustCreate(b, s, newPod("web")), "vault", 600))
			b.StopTimer()
			s.Close()
			b.StartTimer()
		}
	})
}

// BenchmarkTokenRequest is requests of one stock client, so many of them in flight.
func BenchmarkTokenRequest(b *testing.B) {
	eachAlgorithm(b, func(b *testing.B, opts Options) {
		w := newTokenWorld(b, opts)
		accounts := clientset(b, w.Server).CoreV1().ServiceAccounts("default")
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("inflight=%d", n), func(b *testing.B) {
				b.ReportAllocs()
				inFlight(b, n, func() error {
					_, err := accounts.CreateToken(b.Context(), "default", podTokenRequest(w.pod, "vault", 600), metav1.CreateOptions{})
					return err
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	})
}

// inFlight calls f b.N times, n calls at a time.
func inFlight(b *testing.B, n int, f func() error) {
	var begun atomic.Int64
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for begun.Add(1) <= int64(b.N) {
				if err := f(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkCreate10000PodsWatched is 10,000 pods created without HTTP until a stock informer has seen the last.
func BenchmarkCreate10000PodsWatched(b *testing.B) {
	for b.Loop() {
		s := start(b, Options{})
		_, events := podInformer(b, clientset(b, s), onNode)
		go func() {
			for i := range 10_000 {
				if _, err := Create(s, newPod("pod-"+itoa(uint64(i)))); err != nil {
					b.Error(err)
					return
				}
			}
		}()
		expectAny(b, events, 10_000)
		s.Close()
	}
}
