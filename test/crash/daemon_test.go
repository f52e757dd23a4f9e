//go:build crash

package crash

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

var (
	kills = flag.Int("kills", 500, "how often the daemon is killed")
	seed  = flag.Uint64("seed", 1, "of the moments and of the churn")
)

func TestMain(m *testing.M) { flag.Parse(); os.Exit(daemontest.Main(m)) }

const (
	namespace = "default"
	volume    = "token"
	// A resident pod's tokens rotate all the while: the last fifth of a life is for a daemon that is killed again and again. A
	// visitor's outlive the test: each is requested once.
	residents    = 4
	residentLife = 50 * time.Second
	visitors     = 20
)

// churn is a node whose pods come and go while the daemon dies.
type churn struct {
	t      *testing.T
	api    *fakeapi.Server
	root   string
	random *rand.Rand
	stay   []*corev1.Pod
	come   map[string]*corev1.Pod // visitors by name
	made   int
	calm   func() // ends the rotation of residents
}

// The daemon, killed at random moments while pods churn: no reader sees a torn, missing or expired token, no pod is
// lost, no directory is left over, nothing is requested that was on disk already, and a mount of the beginning shows
// fresh tokens at the end.
func TestDaemonKilledAtRandomMoments(t *testing.T) {
	c := newChurn(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("at the end: ", c.untidy())
		}
	})
	c.testPlanted()
	d := daemontest.Start(t, c.api, c.root)
	var readers []*reader
	for _, pod := range c.stay {
		daemontest.Eventually(t, "the first token of "+pod.Name, func() bool { return c.judge(c.file(pod)) == nil })
		readers = append(readers, c.read(c.file(pod)), c.read(filepath.Join(c.mount(pod), volume)))
	}
	held := map[string]bool{}
	n := 0
	for ; n < *kills || slices.ContainsFunc(readers, func(r *reader) bool { return r.tokens.Load() < 3 }); n++ {
		c.turn()
		time.Sleep(time.Duration(c.random.IntN(300)) * time.Millisecond) // a moment, not a wait
		d.Kill()
		c.checkRequests(held)
		held = c.onDisk()
		c.api.ForgetRequests()
		d = daemontest.Start(t, c.api, c.root)
	}
	c.calm() // residents' tokens live long from now on, so that no replaced version is about to be removed
	daemontest.Eventually(t, "a tidy root", func() bool { return c.untidy() == "" })
	for _, r := range readers {
		r.end(t)
	}
	d.Terminate()
	if fault := c.untidy(); fault != "" {
		t.Error(fault)
	}
	t.Logf("seed %d: %d kills, %d visitors, %d tokens", *seed, n, c.made, len(c.api.TokenBytes()))
}

func newChurn(t *testing.T) *churn {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{Node: daemontest.Node, NoAPIAccessVolume: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	c := &churn{t: t, api: api, root: daemontest.MemoryDir(t), random: rand.New(rand.NewPCG(*seed, 0)), come: map[string]*corev1.Pod{}}
	c.calm = api.Inject(fakeapi.Fault{
		Match: fakeapi.Match{Verb: "create", Subresource: "token", Func: func(r *fakeapi.Request) bool { return strings.HasPrefix(r.Name, "resident") }},
		Token: &fakeapi.TokenEdit{Lifetime: residentLife},
	})
	for i := range residents {
		c.stay = append(c.stay, c.create(fmt.Sprintf("resident-%d", i)))
	}
	return c
}

// create makes a pod with a service account of its own, by which its requests are told.
func (c *churn) create(name string) *corev1.Pod {
	c.t.Helper()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	if _, err := fakeapi.Create(c.api, &corev1.ServiceAccount{ObjectMeta: meta}); err != nil {
		c.t.Fatal(err)
	}
	pod, err := fakeapi.Create(c.api, &corev1.Pod{ObjectMeta: meta, Spec: corev1.PodSpec{
		NodeName: daemontest.Node, ServiceAccountName: name, Containers: []corev1.Container{{Name: "app", Image: "none.invalid/app"}},
		Volumes: []corev1.Volume{{Name: volume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience: "vault", ExpirationSeconds: new(int64(7200)), Path: volume}}}}}}},
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	return pod
}

// turn lets a few visitors come and go.
func (c *churn) turn() {
	c.t.Helper()
	for range c.random.IntN(3) {
		name := fmt.Sprintf("visitor-%d", c.made)
		c.made++
		c.come[name] = c.create(name)
	}
	for name, pod := range c.come {
		if len(c.come) <= visitors && c.random.IntN(10) > 0 {
			continue
		}
		if err := c.api.Delete(pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
			c.t.Fatal(err)
		}
		delete(c.come, name)
	}
}

// checkRequests looks at what one life of the daemon requested for visitors: nothing that was on disk, nothing twice.
func (c *churn) checkRequests(held map[string]bool) {
	seen := map[string]bool{}
	for _, r := range c.api.Requests(fakeapi.TokenRequests) {
		if strings.HasPrefix(r.Name, "visitor") && (held[r.Name] || seen[r.Name]) {
			c.t.Errorf("a token of %s was requested although it was on disk (%v) or requested before", r.Name, held[r.Name])
		}
		seen[r.Name] = true
	}
}

// onDisk are the visitors whose token is there.
func (c *churn) onDisk() map[string]bool {
	held := map[string]bool{}
	for name, pod := range c.come {
		held[name] = c.judge(c.file(pod)) == nil
	}
	return held
}

func (c *churn) dir(pod *corev1.Pod) string {
	return filepath.Join(c.root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", volume)
}

func (c *churn) file(pod *corev1.Pod) string { return filepath.Join(c.dir(pod), volume) }

// mount binds the pod's volume to another place, as a runtime does when a container starts.
func (c *churn) mount(pod *corev1.Pod) string {
	c.t.Helper()
	target := c.t.TempDir()
	if err := unix.Mount(c.dir(pod), target, "", unix.MS_BIND, ""); err != nil {
		c.t.Fatalf("mount: %v", err)
	}
	c.t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			c.t.Error(err)
		}
	})
	return target
}

// judge says what is wrong with a token file.
func (c *churn) judge(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = c.claims(raw)
	return err
}

func (c *churn) claims(raw []byte) (jwt.Claims, error) {
	var claims jwt.Claims
	token, err := jwt.ParseSigned(string(raw), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return claims, errors.New("torn: no JWT")
	}
	if err := token.Claims(c.api.Keys(), &claims); err != nil {
		return claims, fmt.Errorf("torn: %w", err)
	}
	return claims, claims.ValidateWithLeeway(jwt.Expected{Time: time.Now()}, 0)
}

// untidy says what is not as an undisturbed daemon would leave it; "" is nothing.
func (c *churn) untidy() string {
	live := map[string]bool{}
	for _, pod := range append(slices.Collect(maps.Values(c.come)), c.stay...) {
		live[string(pod.UID)] = true
		if err := c.judge(c.file(pod)); err != nil {
			return fmt.Sprintf("pod %s: %v", pod.Name, err)
		}
		version, _ := os.Readlink(filepath.Join(c.dir(pod), "..data"))
		want := []string{"..data", version, volume}
		slices.Sort(want)
		if got := names(c.dir(pod)); !slices.Equal(got, want) {
			return fmt.Sprintf("pod %s has %q, want %q", pod.Name, got, want)
		}
	}
	for _, name := range names(filepath.Join(c.root, "pods")) {
		if !live[name] {
			return "a directory of no pod: " + name
		}
	}
	return ""
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{err.Error()}
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// testPlanted: the checks see a torn token, an expired one and a leftover.
func (c *churn) testPlanted() {
	c.t.Helper()
	d := daemontest.Start(c.t, c.api, c.root)
	daemontest.Eventually(c.t, "a tidy root", func() bool { return c.untidy() == "" })
	d.Kill()
	good, err := os.ReadFile(c.file(c.stay[0]))
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.claims(good[:len(good)-3]); err == nil {
		c.t.Error("a torn token was not caught")
	}
	leftover := filepath.Join(c.dir(c.stay[0]), "..2020_01_01_00_00_00.1")
	surplus := filepath.Join(c.root, "pods", "nobody")
	for _, dir := range []string{leftover, surplus} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			c.t.Fatal(err)
		}
		if c.untidy() == "" {
			c.t.Errorf("%s was not caught", dir)
		}
		if err := os.Remove(dir); err != nil {
			c.t.Fatal(err)
		}
	}
}

// reader reads a file all the while.
type reader struct {
	path       string
	stop, done chan struct{}
	tokens     atomic.Int64 // how many different ones it has seen
	fault      error
}

func (c *churn) read(path string) *reader {
	r := &reader{path: path, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.loop(c)
	}()
	return r
}

func (r *reader) loop(c *churn) {
	var last string
	for {
		raw, err := os.ReadFile(r.path)
		if err == nil {
			_, err = c.claims(raw)
		}
		if err != nil && r.fault == nil {
			r.fault = err
		}
		if string(raw) != last {
			r.tokens.Add(1)
		}
		last = string(raw)
		select {
		case <-r.stop:
			return
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// end stops the reader.
func (r *reader) end(t *testing.T) {
	close(r.stop)
	<-r.done
	if r.fault != nil {
		t.Errorf("%s: %v", r.path, r.fault)
	}
}
