//go:build outages

package outages

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

var (
	pods   = flag.Int("pods", 110, "pods of a node")
	length = flag.Duration("for", 3*time.Minute, "length of each outage")
)

const (
	// life is that of every token: refreshed between its 12th and its 96th second.
	life = 120 * time.Second
	// calm is the time between the last first token and the outage: it begins just before the first tokens fall due.
	calm = 5 * time.Second
	// patience bounds the wait for all tokens to be fresh again.
	patience = 2 * time.Minute
	volume   = "token"
)

func TestMain(m *testing.M) { flag.Parse(); os.Exit(daemontest.Main(m)) }

// outage is one way for a server to be out.
type outage struct {
	name string
	// begin starts it and returns what ends it.
	begin func(*node) (end func())
}

// inject is an outage of all requests, or of TokenRequests alone.
func inject(f fakeapi.Fault) func(*node) func() {
	return func(n *node) func() { return n.api.Inject(f) }
}

func tokens(f fakeapi.Fault) func(*node) func() {
	f.Match = fakeapi.TokenRequests
	return inject(f)
}

func refusing(code int, retryAfter time.Duration) func(*node) func() {
	return tokens(fakeapi.Fault{Action: fakeapi.Fail, Code: code, RetryAfter: retryAfter})
}

func edited(e fakeapi.TokenEdit) func(*node) func() { return tokens(fakeapi.Fault{Token: &e}) }

var outages = []outage{
	{"connection refused, watches cut", func(n *node) func() {
		n.must(n.api.GoDown())
		return func() { n.must(n.api.ComeBack()) }
	}},
	{"every request reset", inject(fakeapi.Fault{Action: fakeapi.Reset})},
	{"reset", tokens(fakeapi.Fault{Action: fakeapi.Reset})},
	{"reset in the body", tokens(fakeapi.Fault{Action: fakeapi.ResetBody})},
	{"no headers, released at the end", tokens(fakeapi.Fault{Action: fakeapi.Hang})},
	{"no headers, never answered", tokens(fakeapi.Fault{Action: fakeapi.Hang, Forever: true})},
	{"no body, never answered", tokens(fakeapi.Fault{Action: fakeapi.HangBody, Forever: true})},
	{"bytes of all connections stop, both ways", func(n *node) func() {
		n.link.freeze()
		return n.link.thaw
	}},
	{"bytes of all connections stop for ever", func(n *node) func() {
		n.link.freeze()
		return n.link.abandon
	}},
	{"401", refusing(401, 0)},
	{"403", refusing(403, 0)},
	{"404", refusing(404, 0)},
	{"409", refusing(409, 0)},
	{"422", refusing(422, 0)},
	{"429", refusing(429, 0)},
	{"429 with Retry-After: 2", refusing(429, 2*time.Second)},
	{"500", refusing(500, 0)},
	{"503", refusing(503, 0)},
	{"504", refusing(504, 0)},
	{"garbled answers", tokens(fakeapi.Fault{Action: fakeapi.Garble})},
	{"answers of 8 MiB", tokens(fakeapi.Fault{Action: fakeapi.Oversize, Size: 8 << 20})},
	{"expired tokens", edited(fakeapi.TokenEdit{Shift: -2 * time.Hour})},
	{"tokens not yet valid", edited(fakeapi.TokenEdit{Shift: 2 * time.Hour})},
	{"the wrong audience", edited(fakeapi.TokenEdit{Audiences: []string{"elsewhere"}})},
}

// node is one fake API server, one daemon and its pods.
type node struct {
	t    *testing.T
	api  *fakeapi.Server
	link *link
	root string
	pods []*corev1.Pod
}

// figures are what one outage came to.
type figures struct {
	fresh    []time.Duration // from the end of the outage to the swap, of each token, sorted
	expired  int             // tokens that had expired at the end of the outage
	requests int             // TokenRequests sent during it
	peak     int             // most of them in one second
}

// TestOutages prints a table, and fails if a token was lost or never renewed.
func TestOutages(t *testing.T) {
	rows := make([]string, len(outages))
	var mu sync.Mutex
	t.Run("of", func(t *testing.T) {
		for i, o := range outages {
			t.Run(o.name, func(t *testing.T) {
				t.Parallel()
				time.Sleep(time.Duration(i) * 2 * time.Second) // recoveries must not compete for the processor
				f := measure(t, o)
				mu.Lock()
				defer mu.Unlock()
				rows[i] = f.row(o.name)
			})
		}
	})
	fmt.Printf("%d tokens, %v each; outages of %v\n\n", *pods, life, *length)
	fmt.Println("| outage | s from its end to the median, 95 %, last fresh token | expired at its end | requests in it: all, per s, most in 1 s |\n|---|---|---|---|")
	fmt.Println(strings.Join(rows, "\n"))
}

func (f figures) row(name string) string {
	at := func(part float64) float64 { return f.fresh[int(part*float64(len(f.fresh)-1))].Seconds() }
	return fmt.Sprintf("| %s | %.2f, %.2f, %.2f | %d | %d, %.2f, %d |", name, at(0.5), at(0.95), at(1), f.expired,
		f.requests, float64(f.requests)/length.Seconds(), f.peak)
}

func measure(t *testing.T, o outage) (f figures) {
	n := newNode(t)
	time.Sleep(calm)
	n.api.ForgetRequests()
	end := o.begin(n)
	time.Sleep(*length)
	f.count(n.api.Requests(fakeapi.TokenRequests))
	for _, pod := range n.pods {
		switch c, err := n.claims(pod); {
		case err != nil:
			t.Errorf("pod %s at the end of the outage: %v", pod.Name, err)
		case c.Lifetime.Expired(time.Now()):
			f.expired++
		}
	}
	over := time.Now()
	end()
	f.fresh = n.renewed(over)
	return f
}

func (f *figures) count(requests []fakeapi.Request) {
	f.requests = len(requests)
	for i, r := range requests {
		in := 0
		for _, later := range requests[i:] {
			if later.Time.Sub(r.Time) < time.Second {
				in++
			}
		}
		f.peak = max(f.peak, in)
	}
}

func newNode(t *testing.T) *node {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{Node: daemontest.Node, NoAPIAccessVolume: true, MaxTokenExpiration: life})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	n := &node{t: t, api: api, root: daemontest.MemoryDir(t), link: newLink(t, strings.TrimPrefix(api.URL(), "https://"))}
	for i := range *pods {
		n.create(fmt.Sprintf("pod-%d", i))
	}
	daemontest.Start(t, api, n.root, "--kubeconfig", n.kubeconfig())
	daemontest.Eventually(t, "a token of every pod", func() bool {
		return !slices.ContainsFunc(n.pods, func(pod *corev1.Pod) bool { _, err := n.claims(pod); return err != nil })
	})
	return n
}

func (n *node) create(name string) {
	n.t.Helper()
	pod, err := fakeapi.Create(n.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, Containers: []corev1.Container{{Name: "app", Image: "none.invalid/app"}},
			Volumes: []corev1.Volume{{Name: volume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: volume}}}}}}},
		},
	})
	n.must(err)
	n.pods = append(n.pods, pod)
}

// kubeconfig is the node's, by way of the link.
func (n *node) kubeconfig() string {
	n.t.Helper()
	path := filepath.Join(n.t.TempDir(), "kubeconfig")
	n.must(n.api.WriteKubeconfig(path))
	raw, err := os.ReadFile(path)
	n.must(err)
	n.must(os.WriteFile(path, bytes.ReplaceAll(raw, []byte(n.api.URL()), []byte("https://"+n.link.address())), 0o600))
	return path
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) dir(pod *corev1.Pod) string {
	return filepath.Join(n.root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", volume)
}

func (n *node) claims(pod *corev1.Pod) (projector.Claims, error) {
	raw, err := os.ReadFile(filepath.Join(n.dir(pod), volume))
	if err != nil {
		return projector.Claims{}, err
	}
	return projector.ParseClaims(raw)
}

// renewed waits until every token was issued after the outage, and returns how long after its end each was swapped in.
func (n *node) renewed(over time.Time) []time.Duration {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	fresh := map[string]time.Duration{}
	for len(fresh) < len(n.pods) {
		if time.Now().After(deadline) {
			n.t.Fatalf("%d of %d tokens are fresh %v after the outage", len(fresh), len(n.pods), patience)
		}
		for _, pod := range n.pods {
			if _, ok := fresh[pod.Name]; ok {
				continue
			}
			// Issued in the second in which the outage ended, or later, and swapped in after it.
			c, err := n.claims(pod)
			info, err2 := os.Lstat(filepath.Join(n.dir(pod), "..data"))
			if err == nil && err2 == nil && info.ModTime().After(over) && !c.Lifetime.Issued.Before(over.Truncate(time.Second)) {
				fresh[pod.Name] = info.ModTime().Sub(over)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	var all []time.Duration
	for _, d := range fresh {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}
