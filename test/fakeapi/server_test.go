package fakeapi

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	klog.SetLogger(logr.Discard()) // client-go tells of every fault that we inject
	goleak.VerifyTestMain(m)
}

// testContext ends before the test binary's own limit, so that a lost event shows where it was waited for.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func start(t testing.TB, opts Options) *Server {
	t.Helper()
	s, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func clientset(t testing.TB, s *Server) kubernetes.Interface {
	t.Helper()
	c, err := s.Clientset()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newPod is a pod on the server's node, with one container.
func newPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "main", Image: "example.com/app:1"}}},
	}
}

func mustCreate[T Object](t testing.TB, s *Server, obj T) T {
	t.Helper()
	out, err := Create(s, obj)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func podTokenRequest(pod *corev1.Pod, audience string, expiration int64) *authenticationv1.TokenRequest {
	tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &expiration,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		tr.Spec.Audiences = []string{audience}
	}
	return tr
}

func mustUpdate[T Object](t testing.TB, s *Server, obj T) T {
	t.Helper()
	out, err := Update(s, obj)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// clock is a server's clock that a test moves.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock(t time.Time) *clock {
	c := &clock{}
	c.at.Store(&t)
	return c
}

func (c *clock) now() time.Time { return *c.at.Load() }

func (c *clock) add(d time.Duration) {
	t := c.now().Add(d)
	c.at.Store(&t)
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{SigningKeys: []crypto.Signer{ed25519.PrivateKey(make([]byte, ed25519.PrivateKeySize))}}, {MaxTokenExpiration: -time.Second}, {MaxTokenExpiration: 1500 * time.Millisecond},
		{History: -1}, {BookmarkInterval: -1}, {Listen: "256.0.0.1:0"},
	} {
		if s, err := Start(o); err == nil {
			s.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
}
