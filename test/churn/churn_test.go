//go:build churn

package churn

import (
	"flag"
	"net/http"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

var (
	length = flag.Duration("for", time.Hour, "length of the churn")
	total  = flag.Int("lives", 10_000, "pods that come and go in it")
)

func TestMain(m *testing.M) { flag.Parse(); os.Exit(daemontest.Main(m)) }

const (
	alive     = 100 // pods at a time
	namespace = "default"
	volume    = "projected"
	common    = "common"
	// shortLived is the account whose tokens live for a third of a pod's life.
	shortLived = "short"
)

// The API server is out, or cuts its watches, twenty times in an hour, for five seconds each. What is there within a quarter
// of a minute of that is not judged: client-go waits before it comes back.
const (
	every    = 3 * time.Minute
	out      = 5 * time.Second
	settling = 15 * time.Second
)

// A step that comes so late has stalled with all of the machine: those after it come at once, so that it disturbs like an outage.
// Tokens of shortLived have two seconds left when they are due, if the churn is as short as two minutes.
const stall = time.Second

// newest is how many pods may have come since a sample could find the files of all.
const newest = 5

// idle is for how long connections that nobody uses are kept, and a little more.
const idle = 100 * time.Second

// accounts are deleted and made again under their names.
var accounts = []string{"anew-0", "anew-1", "anew-2"}

// node is one fake API server, one daemon and the pods of the moment.
type node struct {
	t      *testing.T
	name   string
	api    *fakeapi.Server
	root   string
	daemon *daemontest.Process
	// recover ends the disturbance that has begun last.
	recover func()
	lives   []*life       // alive, oldest first
	judged  int           // pods looked at, at their ends
	settled int           // the life by which the last stall is over
	waited  time.Duration // for the daemon, since a life was in time
}

// TestChurn: a daemon that has served ten thousand pods holds no more than one that has served a thousand, and with none
// left no more than before the first.
func TestChurn(t *testing.T) {
	n := newNode(t)
	baseline := n.warm()
	t.Logf("at rest: %s", baseline.row())
	n.fill()
	t.Logf("with %d pods: %s", alive, n.settle().row())
	for _, what := range growth(n.churn(time.Now())) {
		t.Errorf("grown: %s", what)
	}
	n.endAll()
	n.restAsAt(baseline)
	if t.Logf("%d of %d pods were judged at their ends", n.judged, *total); n.judged < *total/10 {
		t.Error("too few: the machine has stalled, or something has taken it for that")
	}
	n.daemon.Terminate()
}

// churn lives all lives, at an even pace, and returns what was counted meanwhile, in quiet moments.
func (n *node) churn(start time.Time) (samples []sample) {
	n.t.Helper()
	before := n.requests()
	for part := range 10 {
		from := len(samples)
		for i := part * *total / 10; i < (part+1)**total/10; i++ {
			n.pace(start, i)
			n.step(i)
			if n.quiet(i) && i%max(1, *total/taken) == 0 {
				begun := time.Now()
				n.awaitFiles(n.lives[alive-newest:])
				samples = append(samples, n.sample())
				n.waited += time.Since(begun)
			}
		}
		n.t.Logf("after %v, %.0f TokenRequests; the least of %d samples: %s", time.Since(start).Round(time.Second), n.requests()-before,
			len(samples)-from, least(samples[from:]).row())
	}
	return samples
}

// pace waits until life i is due, and notes if that was long ago, but for what the churn has waited for the daemon.
func (n *node) pace(start time.Time, i int) {
	due := start.Add(time.Duration(i) * *length / time.Duration(*total))
	if early := time.Until(due); early > 0 {
		n.waited = 0
		time.Sleep(early) // the pace
	}
	if late := time.Since(due) - n.waited; late > stall {
		if i >= n.settled {
			n.t.Logf("life %d is %v late", i, late.Round(time.Millisecond))
		}
		n.settled = i + livesIn(settling) + 1
	}
}

func newNode(t *testing.T) *node {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{Node: daemontest.Node, Forgetful: true, History: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	n := &node{t: t, name: daemontest.Node, api: api, root: daemontest.MemoryDir(t)}
	lifetime := (*length * alive / time.Duration(*total) / 3).Truncate(time.Second)
	api.Inject(fakeapi.Fault{
		Match: fakeapi.Match{Verb: "create", Subresource: "token", Name: shortLived},
		Token: &fakeapi.TokenEdit{Lifetime: max(lifetime, 2*time.Second)},
	})
	n.put(configMap(common, "first"))
	n.put(&corev1.Secret{ObjectMeta: configMap(common, "").ObjectMeta, Data: map[string][]byte{"secret": []byte("s")}})
	for _, name := range append(accounts, shortLived) {
		n.put(account(name))
	}
	n.daemon = daemontest.Start(t, api, n.root, "--log-level", "info")
	return n
}

// put makes an object.
func (n *node) put(o fakeapi.Object) {
	n.t.Helper()
	_, err := fakeapi.Create(n.api, o)
	n.must(err)
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// warm lets one pod of each kind come and go, and returns what is there at rest then, when idle connections have been
// closed.
func (n *node) warm() sample {
	n.t.Helper()
	for i := range kinds {
		n.lives = append(n.lives, n.create(i))
	}
	n.lives = append(n.lives, n.create(alive-1))
	n.awaitFiles(n.lives)
	daemontest.Eventually(n.t, "the event of the broken one", func() bool {
		events, err := fakeapi.List[*corev1.Event](n.api, namespace)
		return err == nil && len(events) > 0
	})
	n.endAll()
	time.Sleep(idle) // nothing tells that a connection was closed
	return n.settle()
}

// settle takes the least of two seconds: a scrape and its connection are part of some samples and not of others.
func (n *node) settle() sample {
	n.t.Helper()
	var samples []sample
	for range 20 {
		samples = append(samples, n.sample())
		time.Sleep(100 * time.Millisecond) // between samples
	}
	return least(samples)
}

// fill makes the first pods, and waits for their files.
func (n *node) fill() {
	n.t.Helper()
	for i := range alive {
		n.lives = append(n.lives, n.create(i))
	}
	n.awaitFiles(n.lives)
	nobody := &life{n: n, pod: n.lives[0].pod.DeepCopy()}
	if nobody.pod.UID = "nobody"; nobody.fault() == "" {
		n.t.Error("a missing file was not caught")
	}
}

func (n *node) awaitFiles(of []*life) {
	n.t.Helper()
	for _, l := range of {
		daemontest.Eventually(n.t, "the files of a "+l.kind.name, func() bool { return l.kind.broken || l.fault() == "" })
	}
}

func (n *node) endAll() {
	n.t.Helper()
	for _, l := range n.lives {
		l.end()
	}
	n.lives = nil
}

// restAsAt waits until what was there at rest is all that is there.
func (n *node) restAsAt(baseline sample) {
	n.t.Helper()
	// Which connections are kept beside those of the watches, chance decides, and not each of them has two goroutines.
	slack := sample{sockets: 2, goroutines: 2}
	deadline := time.Now().Add(2 * idle)
	for {
		now := n.settle()
		excess := ""
		for _, what := range []string{inotify, sockets, files, watches, goroutines, surplus} {
			if now[what] > baseline[what]+slack[what] {
				excess += " " + what
			}
		}
		switch {
		case excess == "":
			n.t.Logf("after the last pod: %s", now.row())
			return
		case time.Now().After(deadline):
			n.t.Errorf("more than before the first pod:%s: %s", excess, now.row())
			return
		}
	}
}

// step ends the oldest pod, changes one in the middle of its life, and makes a new one.
func (n *node) step(i int) {
	n.t.Helper()
	n.disturb(i)
	n.judge(n.lives[0], i)
	n.lives[0].end()
	n.lives = append(n.lives[1:], n.create(alive+i))
	n.lives[alive/2].change()
}

// projected is how many pods should have a directory.
func (n *node) projected() (count int) {
	for _, l := range n.lives {
		if !l.over {
			count++
		}
	}
	return count
}

// disturb begins and ends outages.
func (n *node) disturb(i int) {
	n.t.Helper()
	which, since := disturbance(i)
	switch since {
	case 0:
		n.recover = n.begin(which)
	case livesIn(out):
		n.recover()
	}
}

// begin begins one and returns what ends it.
func (n *node) begin(which int) (end func()) {
	n.t.Helper()
	switch which % 4 {
	case 0:
		n.must(n.api.GoDown())
		return func() { n.must(n.api.ComeBack()) }
	case 1:
		return n.api.Inject(fakeapi.Fault{Match: fakeapi.TokenRequests, Action: fakeapi.Fail, Code: http.StatusServiceUnavailable})
	case 2:
		n.api.ExpireResourceVersions()
	}
	n.api.CutWatches()
	return func() {}
}

// disturbance is the one of life i, and how many lives ago it began.
func disturbance(i int) (which, since int) {
	cycle := livesIn(min(every, *length/4))
	return i / cycle, i%cycle - cycle/2
}

// livesIn is how many pods come and go in d, at least one.
func livesIn(d time.Duration) int { return max(1, int(d*time.Duration(*total) / *length)) }

// quiet reports whether none has begun, and nothing stalled, a short while ago.
func (n *node) quiet(i int) bool {
	_, since := disturbance(i)
	return i >= n.settled && (since < 0 || since > livesIn(settling))
}

// judge looks at a pod whose end has come with life i.
func (n *node) judge(l *life, i int) {
	n.t.Helper()
	if l.over || l.kind.broken || !n.quiet(i) {
		return
	}
	n.judged++
	if fault := l.fault(); fault != "" {
		n.t.Errorf("a %s, at its end: %s", l.kind.name, fault)
	}
}
