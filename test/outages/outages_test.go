//go:build outages

package outages

import (
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
	// soon is after the end of an outage: a probe is sent each second or two, and the files of a certificate are read
	// each two seconds; the rest is for machines that have other work. A token that is so late has seconds left.
	soon        = 20 * time.Second
	tokenVolume = "token"
)

// TestMain runs all tests at once, whatever go test was told: they do little but wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "100"); err != nil {
		panic(err)
	}
	os.Exit(daemontest.Main(m))
}

// node is one fake API server, one daemon and its pods.
type node struct {
	t    *testing.T
	api  *fakeapi.Server
	link *link
	root string
	pods []*corev1.Pod
	dir  string // of the daemon's credential
	user string // whose it is
}

// figures are what one outage came to.
type figures struct {
	fresh    []time.Duration // from the end of the outage to the swap, of each token, sorted
	newcomer string          // when a pod that came in the outage had its token
	expired  int             // most tokens that were seen expired
	requests int             // TokenRequests sent during it
	peak     int             // most of them in one second
}

// TestOutages prints a table, and fails if a token was lost or never renewed.
func TestOutages(t *testing.T) {
	t.Parallel()
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
	fmt.Println("| outage | s from its end to the median, 95 %, last fresh token | token of a pod that came a second after its beginning | expired | requests in it: all, per s, most in 1 s |\n|---|---|---|---|---|")
	fmt.Println(strings.Join(rows, "\n"))
}

func (f figures) row(name string) string {
	fresh := "always"
	if len(f.fresh) > 0 {
		at := func(part float64) float64 { return f.fresh[int(part*float64(len(f.fresh)-1))].Seconds() }
		fresh = fmt.Sprintf("%.2f, %.2f, %.2f", at(0.5), at(0.95), at(1))
	}
	return fmt.Sprintf("| %s | %s | %s | %d | %d, %.2f, %d |", name, fresh, f.newcomer, f.expired,
		f.requests, float64(f.requests)/length.Seconds(), f.peak)
}

func measure(t *testing.T, o outage) (f figures) {
	n := newNode(t, *pods, o.byToken)
	time.Sleep(calm)
	n.api.ForgetRequests()
	began := time.Now()
	end := o.begin(n)
	time.Sleep(time.Second)
	came, published := time.Now(), n.published(n.create("newcomer"))
	for time.Since(began) < *length {
		time.Sleep(min(5*time.Second, time.Until(began.Add(*length))))
		f.expired = max(f.expired, n.expired())
	}
	f.count(n.api.Requests(fakeapi.TokenRequests))
	over := time.Now()
	end()
	if o.granted && f.expired > 0 {
		t.Errorf("%d tokens were seen expired although their requests were answered", f.expired)
	}
	if !o.granted {
		f.fresh = n.renewed(over)
		if *length > life && f.expired < len(n.pods) {
			t.Errorf("%d of %d tokens expired in the outage: it was none", f.expired, len(n.pods))
		}
		if last := f.fresh[len(f.fresh)-1]; f.expired == len(n.pods) && last > soon {
			t.Errorf("the last token is fresh after %v", last)
		}
	}
	at := n.await(published)
	f.newcomer = fmt.Sprintf("%.2f s after the end", at.Sub(over).Seconds())
	if at.Before(over) {
		f.newcomer = fmt.Sprintf("%.2f s after it came", at.Sub(came).Seconds())
	}
	return f
}

// published tells when the pod's first token is there.
func (n *node) published(pod *corev1.Pod) <-chan time.Time {
	n.t.Helper()
	dir, published := n.volume(pod), make(chan time.Time, 1)
	go func() {
		for n.t.Context().Err() == nil {
			if info, err := os.Lstat(filepath.Join(dir, "..data")); err == nil {
				published <- info.ModTime()
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return published
}

func (n *node) await(published <-chan time.Time) (at time.Time) {
	n.t.Helper()
	select {
	case at = <-published:
	case <-time.After(patience):
		n.t.Fatal("no token of a pod that has come")
	}
	return at
}

// expired counts the tokens that are on disk and no good. One that is not there is an error.
func (n *node) expired() (expired int) {
	n.t.Helper()
	for _, pod := range n.pods {
		switch c, err := n.claims(pod); {
		case err != nil:
			n.t.Errorf("pod %s in the outage: %v", pod.Name, err)
		case c.Lifetime.Expired(time.Now()):
			expired++
		}
	}
	return expired
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

func newNode(t *testing.T, pods int, byToken bool) *node {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{Node: daemontest.Node, NoAPIAccessVolume: true, MaxTokenExpiration: life})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	n := &node{t: t, api: api, root: daemontest.MemoryDir(t), link: newLink(t, strings.TrimPrefix(api.URL(), "https://"))}
	n.dir = t.TempDir()
	for i := range pods {
		n.pods = append(n.pods, n.create(fmt.Sprintf("pod-%d", i)))
	}
	daemontest.Start(t, api, n.root, "--kubeconfig", n.kubeconfig(byToken))
	daemontest.Eventually(t, "a token of every pod", func() bool {
		return !slices.ContainsFunc(n.pods, func(pod *corev1.Pod) bool { _, err := n.claims(pod); return err != nil })
	})
	return n
}

func (n *node) create(name string) *corev1.Pod { return n.createAs("default", name, "") }

// createAs makes a pod of an account, both in a namespace.
func (n *node) createAs(namespace, name, account string) *corev1.Pod {
	n.t.Helper()
	n.must(n.api.AddNamespace(namespace))
	if account != "" {
		_, err := fakeapi.Create(n.api, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}})
		n.must(err)
	}
	pod, err := fakeapi.Create(n.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, ServiceAccountName: account, Containers: []corev1.Container{{Name: "app", Image: "none.invalid/app"}},
			Volumes: []corev1.Volume{{Name: tokenVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: tokenVolume}}}}}}},
		},
	})
	n.must(err)
	return pod
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) volume(pod *corev1.Pod) string {
	return filepath.Join(n.root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", tokenVolume)
}

func (n *node) claims(pod *corev1.Pod) (projector.Claims, error) {
	raw, err := os.ReadFile(filepath.Join(n.volume(pod), tokenVolume))
	if err != nil {
		return projector.Claims{}, err
	}
	return projector.ParseClaims(raw)
}

// renewed waits until every token was renewed after the outage, and returns how long after its end each was swapped in.
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
			// Swapped in after the outage. What was held in it, and let go at its end, was issued before.
			c, err := n.claims(pod)
			info, err2 := os.Lstat(filepath.Join(n.volume(pod), "..data"))
			if err == nil && err2 == nil && info.ModTime().After(over) && !c.Lifetime.Expired(time.Now()) {
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
