package conformance

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/token-projector/token-projector/test/cases"
)

// esUsual is cases.Usual with the other algorithm.
var esUsual = &cases.Flags{Issuers: cases.Usual.Issuers, Algs: []jose.SignatureAlgorithm{jose.ES256}}

// BenchmarkTokenRequests is pod-bound requests of one stock client of the fake server, in this process, and of the real
// one, so many of them in flight.
func BenchmarkTokenRequests(b *testing.B) {
	fake := &cases.Fake{}
	defer fake.Close()
	for _, s := range []struct {
		name   string
		target cases.Target
		flags  *cases.Flags
	}{{"fake-ES256", fake, esUsual}, {"real-ES256", plane, esUsual}, {"fake-RS256", fake, cases.Usual}, {"real-RS256", plane, cases.Usual}} {
		request := tokenRequester(b, s.target, s.flags)
		for _, n := range []int{1, 16, 64} {
			b.Run(fmt.Sprintf("%s/inflight=%d", s.name, n), func(b *testing.B) {
				inFlight(b, n, request)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}

// tokenRequester makes a pod on the server, and returns what requests a token that is bound to it.
func tokenRequester(b *testing.B, target cases.Target, flags *cases.Flags) func() error {
	server, err := target.Server(b.Context(), flags, false)
	if err != nil {
		b.Fatal(err)
	}
	config, err := server.User("bench", "system:masters")
	if err != nil {
		b.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	pod, err := client.CoreV1().Pods("default").Create(b.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "none.invalid/app"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	seconds := int64(600)
	return func() error {
		_, err := client.CoreV1().ServiceAccounts("default").CreateToken(b.Context(), "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{"vault"}, ExpirationSeconds: &seconds,
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}, metav1.CreateOptions{})
		return err
	}
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
