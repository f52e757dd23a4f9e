package projector

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/rotation"
)

// rig drives a state by hand: no goroutine, no disk, and time passes when the
// test says so. The server's clock is the machine's wall clock plus ahead.
type rig struct {
	t      testing.TB
	config Config // of s, and of those that come after a restart
	s      *state
	now    rotation.Time
	ahead  time.Duration

	answer   func(Request) (Minted, error)       // of the server
	heard    bool                                // answers tell the server's time
	broken   error                               // of the disk: nothing was done
	lied     error                               // of the disk: it was done, and is reported as failed
	blind    func(Key) error                     // of the watches: why there is none; nil: there are enough
	accounts map[accountRef]types.UID            // UIDs, of which tokens are and look-ups tell; set lookUp for these
	cached   func(accountRef) (types.UID, error) // of look-ups; nil: accounts
	files    map[Key]map[string]simFile          // on the simulated disk; a volume that is there has a version
	stale    map[Key][]string                    // versions that wait to be swept
	made     int                                 // versions written

	flying    []job
	requests  []sentRequest
	lookups   []sentLookup
	published []Published
	watching  map[ObjectRef]bool
	logged    bytes.Buffer
	events    *record.FakeRecorder
}

type simFile struct {
	data  string
	mode  fs.FileMode
	owner atomicwriter.Owner
}

type sentRequest struct {
	Request
	at time.Time // server time
}

type sentLookup struct {
	accountRef
	at time.Time // server time
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, files: map[Key]map[string]simFile{}, stale: map[Key][]string{}, watching: map[ObjectRef]bool{}, heard: true}
	r.now = rotation.Time{Mono: time.Hour, Wall: issuedAt}
	r.answer = r.good
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&r.logged), zap.DebugLevel)
	r.events = record.NewFakeRecorder(10_000)
	r.config = Config{NodeName: "node", Log: zap.New(core), Events: r.events, Published: func(p Published) { r.published = append(r.published, p) }}
	r.config.defaults()
	r.s = newState(&r.config)
	r.s.hear(r.server(), r.now, r.now)
	return r
}

// unswept has no volume read for a day without a reason.
func (r *rig) unswept() {
	r.s.sweep = 24 * time.Hour
	for _, p := range r.s.pods {
		for _, v := range p.volumes {
			v.verifyAt = r.server().Add(r.s.sweep)
			r.s.plan(v, r.server())
		}
	}
}

// server is the true time of the server.
func (r *rig) server() time.Time { return r.now.Wall.Add(r.ahead) }

// pass lets both clocks of the machine, and the server's, run.
func (r *rig) pass(d time.Duration) {
	r.now.Mono += d
	r.now.Wall = r.now.Wall.Add(d)
}

// step moves the machine's wall clock, and nothing else.
func (r *rig) step(d time.Duration) {
	r.now.Wall, r.ahead = r.now.Wall.Add(d), r.ahead-d
}

// good is the answer of a server in order.
func (r *rig) good(q Request) (Minted, error) {
	issued, ttl := r.server().Truncate(time.Second), time.Duration(q.ExpirationSeconds)*time.Second
	account, ok := r.accounts[accountRef{q.Namespace, q.ServiceAccount}]
	if !ok && r.accounts != nil {
		return Minted{}, &MintError{Code: 404, Message: "not found"}
	}
	m := Minted{
		Token:      NewToken(sign(ofAccount(claimsFor(q, issued, ttl), account))),
		AccountUID: account,
		Lifetime:   rotation.Lifetime{Issued: issued, Expires: issued.Add(ttl)},
	}
	if r.heard {
		m.ServerTime = r.server()
	}
	return m, nil
}

// refuse returns a server that refuses with code.
func refusing(code int, retryAfter time.Duration) func(Request) (Minted, error) {
	return func(Request) (Minted, error) {
		return Minted{}, &MintError{Code: code, RetryAfter: retryAfter, Message: "refused"}
	}
}

// turn is one turn of the owner. It returns the jobs that were started.
func (r *rig) turn() []job {
	r.s.dispatch(r.now)
	r.s.answer(r.now)
	jobs := slices.Clone(r.s.jobs)
	for _, j := range jobs {
		if j.mint != nil {
			r.requests = append(r.requests, sentRequest{j.mint.request, r.server()})
		}
		if j.lookup != nil {
			r.lookups = append(r.lookups, sentLookup{j.lookup.account.ref, r.server()})
		}
	}
	for _, ref := range r.s.released {
		delete(r.watching, ref)
	}
	for _, ref := range r.s.watching {
		r.watching[ref] = true
	}
	r.s.jobs, r.s.watching, r.s.released = nil, nil, nil
	r.flying = append(r.flying, jobs...)
	return jobs
}

// finish carries a job out and has its result taken in.
func (r *rig) finish(j job) {
	r.flying = slices.DeleteFunc(r.flying, func(f job) bool { return f == j })
	switch {
	case j.mint != nil:
		m, err := r.answer(j.mint.request)
		if e, ok := errors.AsType[*MintError](err); ok && e.Code != 0 && r.heard {
			r.s.hear(r.server(), j.mint.sent, r.now) // every answer has a Date; see HearServer
		}
		r.s.finishMint(j.mint, m, err, r.now)
	case j.lookup != nil:
		uid, err := r.lookup(j.lookup.account.ref)
		r.s.finishLookup(j.lookup, uid, err, r.now)
	case j.read != nil:
		version, sums, claims := r.read(j.read.key)
		r.s.finishRead(j.read, version, sums, claims, found{watch: r.watch(j.read.key, j.read.watch), stale: slices.Clone(r.stale[j.read.key]), err: r.broken}, r.now)
	case j.publish != nil:
		result := r.publish(j.publish)
		r.s.finishPublish(j.publish, result, found{watch: r.watch(j.publish.key, j.publish.watch), stale: result.Stale, err: errors.Join(r.broken, r.lied)}, r.now)
	default:
		if j.remove.p != nil && r.broken == nil {
			maps.DeleteFunc(r.files, func(k Key, _ map[string]simFile) bool { return string(k.PodUID) == j.remove.uid })
			maps.DeleteFunc(r.stale, func(k Key, _ []string) bool { return string(k.PodUID) == j.remove.uid })
		}
		r.s.finishRemove(j.remove, errors.Join(r.broken, r.lied), r.now)
	}
}

// watch sets the watches of a volume, as far as there are any.
func (r *rig) watch(k Key, h watchHandle) watchHandle {
	if h.blind = nil; r.blind != nil {
		h.blind = r.blind(k)
	}
	return h
}

func (r *rig) lookup(ref accountRef) (types.UID, error) {
	if r.cached != nil {
		return r.cached(ref)
	}
	uid, ok := r.accounts[ref]
	if !ok {
		return "", &MintError{Code: 404, Message: "not found"}
	}
	return uid, nil
}

func (r *rig) read(k Key) (atomicwriter.Version, [][32]byte, map[string]Claims) {
	held, ok := r.files[k]
	if !ok || r.broken != nil {
		return atomicwriter.Version{}, nil, nil
	}
	v := atomicwriter.Version{Name: fmt.Sprintf("..v%d", r.made)}
	for _, path := range slices.Sorted(maps.Keys(held)) {
		v.Files = append(v.Files, atomicwriter.Entry{Path: path, Data: []byte(held[path].data), Mode: held[path].mode, Owner: held[path].owner})
	}
	g := digest{claims: make(map[string]Claims)}
	for _, e := range v.Files {
		g.add(e)
	}
	return v, g.sums, g.claims
}

// publish does what atomicwriter documents.
func (r *rig) publish(j *publishJob) (result atomicwriter.Result) {
	result = atomicwriter.Result{Outcome: atomicwriter.Unchanged, Version: fmt.Sprintf("..v%d", r.made)}
	if r.broken != nil {
		return result
	}
	r.stale[j.key] = slices.DeleteFunc(r.stale[j.key], func(name string) bool { return slices.Contains(j.sweep, name) })
	defer func() { result.Stale = slices.Clone(r.stale[j.key]) }()
	wanted := map[string]simFile{}
	for _, f := range j.files {
		data := f.Data
		if f.Keep != nil {
			data = []byte(r.files[j.key][f.Path].data)
			if sha256.Sum256(data) != *f.Keep {
				result.Lost = append(result.Lost, f.Path)
			}
		}
		wanted[f.Path] = simFile{string(data), f.Mode, *f.Owner}
		result.Sums = append(result.Sums, sha256.Sum256(data))
	}
	if len(result.Lost) > 0 {
		result.Outcome = atomicwriter.Incomplete
		return result
	}
	if old, ok := r.files[j.key]; !ok || !maps.Equal(old, wanted) {
		if ok {
			r.stale[j.key] = append(r.stale[j.key], result.Version)
		}
		r.made++
		result.Outcome, result.Version, r.files[j.key] = atomicwriter.Written, fmt.Sprintf("..v%d", r.made), wanted
	}
	return result
}

// drain runs the owner, and every job at once, until there is nothing to do now.
func (r *rig) drain() {
	r.t.Helper()
	for n := 0; ; n++ {
		r.turn()
		if len(r.flying) == 0 {
			return
		}
		if n == 10_000 {
			r.t.Fatal("the owner finds work for ever without any time passing")
		}
		r.finish(r.flying[0])
	}
}

// run lets that much time pass, waking up as the owner would.
func (r *rig) run(d time.Duration) {
	r.t.Helper()
	end := r.now.Mono + d
	for r.drain(); r.now.Mono < end; r.drain() {
		pause := r.s.wake(r.now)
		if pause <= 0 || pause > time.Minute {
			r.t.Fatalf("with nothing to do now, the owner sleeps for %v", pause)
		}
		r.pass(min(pause, end-r.now.Mono))
	}
}

// apply has a pod wanted. touchCA gives it the configMap of its first volume.
func (r *rig) apply(pod *corev1.Pod) {
	r.s.apply(Desired(pod, SelectAll), r.now)
}

var certificate = map[string][]byte{"ca.crt": []byte("certificate")}

func (r *rig) touchCA() { r.s.touch(rootCA, certificate, r.now) }

// lonePod has one volume, extra, with one token for vault.
func lonePod(n int, ttl int64) *corev1.Pod {
	pod := testPod(n, "vault", ttl)
	pod.Spec.Volumes = pod.Spec.Volumes[1:]
	return pod
}

func uid(n int) types.UID { return types.UID(fmt.Sprintf("uid-%d", n)) }

func extra(n int) Key { return Key{uid(n), "extra"} }

func access(n int) Key { return Key{uid(n), "kube-api-access-x"} }

func (r *rig) volume(k Key) *volume {
	r.t.Helper()
	p := r.s.pods[k.PodUID]
	if p == nil || p.volumes.find(k.Volume) == nil {
		r.t.Fatalf("volume %v is not known", k)
	}
	return r.s.pods[k.PodUID].volumes.find(k.Volume)
}

// settled has n lone pods published.
func settled(t testing.TB, n int, ttl int64) *rig {
	t.Helper()
	r := newRig(t)
	for i := range n {
		r.apply(lonePod(i, ttl))
	}
	r.s.replace(r.wishes(), r.now)
	r.drain()
	if r.made != n || len(r.requests) != n {
		t.Fatalf("%d versions and %d requests for %d pods", r.made, len(r.requests), n)
	}
	return r
}

// wishes are those of all pods that are wanted now.
func (r *rig) wishes() []Wish {
	var wishes []Wish
	for _, p := range r.s.pods {
		if !p.gone {
			wishes = append(wishes, p.wish)
		}
	}
	return wishes
}

// flight returns the one job of that kind in flight.
func (r *rig) flight(kind func(job) bool) job {
	r.t.Helper()
	i := slices.IndexFunc(r.flying, kind)
	if i < 0 {
		r.t.Fatalf("no such job among %d in flight", len(r.flying))
	}
	return r.flying[i]
}

func isMint(j job) bool    { return j.mint != nil }
func isRead(j job) bool    { return j.read != nil }
func isPublish(j job) bool { return j.publish != nil }
func isRemoval(j job) bool { return j.remove != nil && j.remove.p != nil }

// until finishes jobs until one of that kind is in flight, and returns it.
func (r *rig) until(kind func(job) bool) job {
	r.t.Helper()
	for range 100 {
		r.turn()
		if slices.ContainsFunc(r.flying, kind) {
			return r.flight(kind)
		}
		if len(r.flying) == 0 {
			break
		}
		r.finish(r.flying[0])
	}
	r.t.Fatal("no such job is started")
	return job{}
}

// onDisk is the token file of a lone pod, by its claims.
func (r *rig) onDisk(k Key, path string) Claims {
	r.t.Helper()
	c, err := ParseClaims([]byte(r.files[k][path].data))
	if err != nil {
		r.t.Fatalf("%v %s: %v", k, path, err)
	}
	return c
}

// count is how often a log line with that text was written.
func (r *rig) count(text string) int { return strings.Count(r.logged.String(), text) }

// says reports whether a log line with that text was written.
func (r *rig) says(text string) bool { return strings.Contains(r.logged.String(), text) }
