package projector

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/rotation"
)

// job is one piece of I/O for a worker; exactly one of the fields is set.
type job struct {
	mint    *mintJob
	lookup  *lookupJob
	publish *publishJob
	read    *readJob
	remove  *removeJob
}

type mintJob struct {
	v       *volume
	token   int // index into v.tokens
	request Request
	sent    rotation.Time
	early   bool               // a probe for a token that is not due
	probe   bool               // of a server that is out
	givenUp bool               // see overtake
	cancel  context.CancelFunc // set by Run
}

type readJob struct {
	v     *volume
	key   Key
	watch watchHandle
}

type publishJob struct {
	v     *volume
	key   Key
	now   time.Time // names the version
	files []atomicwriter.File
	from  map[string]int // see content
	group *int           // of the directories; nil: our own
	sweep []string
	// refused are the owners that may not be given. The worker adds to it, and
	// changes files and group accordingly.
	refused     []atomicwriter.Owner
	mountpoints []string // to be made beside the files
	verify      bool     // nothing was known to differ
	watch       watchHandle
	sent        rotation.Time
}

type removeJob struct {
	p       *pod // nil: only the watches are to be closed
	uid     string
	watches []watchHandle
}

// dispatch decides which jobs to start at now and leaves them in s.jobs.
func (s *state) dispatch(now rotation.Time) {
	s.tell(now)
	for len(s.asked) < s.maxInFlight && s.mintNext(now) {
	}
	for s.looking < maxLookups && s.lookNext(now) {
	}
	for s.onDisk < diskWorkers && s.diskNext(now) {
	}
}

// mintNext starts the mint that is wanted most, if any may be sent now.
func (s *state) mintNext(now rotation.Time) bool {
	server := s.server(now)
	v, probing := s.nextMint(server, now)
	if v == nil {
		return false
	}
	if t := s.nextToken(v); t != nil { // nil: retired since it was queued
		if probing {
			s.outage.Probing(now.Mono)
		}
		s.startMint(v, t, now)
		s.asked[len(s.asked)-1].probe = probing
	}
	return true
}

// nextMint picks the volume to mint for, nil for none, and tells whether that probes a server that is out.
func (s *state) nextMint(server time.Time, now rotation.Time) (v *volume, probing bool) {
	if s.refusing { // what was not refused yet may be granted, and does not wait for the rest
		if v, _ := s.mints.Pop(server); v != nil {
			return v, false
		}
	}
	switch ok, _ := s.outage.Probe(now.Mono); {
	case !ok:
		return nil, false
	case s.outage.Open():
		return s.probe(server), true
	case s.clock.Doubtful(now) && len(s.asked) > 0:
		return nil, false // one answer will tell the time; then the rest can be judged
	}
	v, _ = s.mints.Pop(server)
	return v, false
}

// probe picks the volume to ask the server with while it is out: each time
// another one, soonest expiry first; then one that is not due yet; then those
// that failed before, in their order, but what is due before what is not.
//
// A namespace in which nothing has failed yet goes before all that: if the cause
// lies in one namespace, such as its webhook, the others must not wait for it.
func (s *state) probe(server time.Time) *volume {
	if v := s.probeElsewhere(server); v != nil {
		return v
	}
	if v, ok := s.mints.Pop(server); ok {
		return v
	}
	if v, ok := s.mints.PopEarly(server); ok {
		if t := s.nextToken(v); t != nil && t.retryAt.IsZero() && !server.Before(t.earliest()) {
			return v
		}
		s.plan(v, server)
	}
	v := s.nextHeld(server)
	if v != nil {
		s.unhold(v)
	}
	return v
}

// nextHeld picks, of the volumes that failed in the outage, the first that is due,
// but for the one that failed last; else the first.
func (s *state) nextHeld(server time.Time) (next *volume) {
	for i, v := range s.held {
		switch {
		case v.busy: // it is being read back, or another token of it is asked for
		case i < len(s.held)-1 && v.overdue(server):
			return v
		case next == nil:
			next = v
		}
	}
	return next
}

// overdue reports whether a token that is held is due.
func (v *volume) overdue(server time.Time) bool {
	return slices.ContainsFunc(v.tokens, func(t token) bool { return t.held && !server.Before(t.at()) })
}

// probeElsewhere picks the most urgent volume that is due in a namespace in
// which nothing has failed in this outage; nil if there is none.
func (s *state) probeElsewhere(server time.Time) *volume {
	var skipped []*volume
	defer func() {
		for _, v := range skipped {
			s.plan(v, server)
		}
	}()
	for {
		v, ok := s.mints.Pop(server)
		if !ok || !s.struck[v.pod.wish.Namespace] {
			return v
		}
		skipped = append(skipped, v)
	}
}

func (s *state) unhold(v *volume) {
	if v.held {
		v.release()
		s.held = slices.DeleteFunc(s.held, func(h *volume) bool { return h == v })
	}
}

// hold puts a token that has failed in the outage behind all that have not, the
// other tokens of its volume among them.
func (s *state) hold(v *volume, t *token) {
	t.held = true
	if !v.held {
		v.held = true
		s.held = append(s.held, v)
	}
}

// release has the volume's tokens compete again.
func (v *volume) release() {
	v.held = false
	for i := range v.tokens {
		v.tokens[i].held = false
	}
}

func (s *state) startMint(v *volume, t *token, now rotation.Time) {
	s.begin(v)
	w := &v.pod.wish
	j := &mintJob{
		v: v, token: v.index(t), sent: now, early: s.server(now).Before(t.at()),
		request: Request{
			Namespace: w.Namespace, ServiceAccount: w.ServiceAccount,
			PodName: w.Name, PodUID: w.UID,
			Audience: t.source.Audience, ExpirationSeconds: t.source.ExpirationSeconds,
		},
	}
	s.asked = append(s.asked, j)
	s.jobs = append(s.jobs, job{mint: j})
}

func (v *volume) index(t *token) int {
	for i := range v.tokens {
		if &v.tokens[i] == t {
			return i
		}
	}
	return -1
}

// begin marks a volume as having a job in flight.
func (s *state) begin(v *volume) {
	v.busy = true
	s.mints.Remove(v)
	s.disks.Remove(v)
}

// diskNext starts the disk job that is wanted most, if any is due.
func (s *state) diskNext(now rotation.Time) bool {
	server := s.server(now)
	if len(s.closing) > 0 {
		s.onDisk++
		s.jobs = append(s.jobs, job{remove: &removeJob{watches: s.closing}})
		s.closing = nil
		return true
	}
	if v, ok := s.disks.Pop(server); ok {
		s.begin(v)
		s.onDisk++
		s.jobs = append(s.jobs, s.diskJob(v, now))
		return true
	}
	p, ok := s.removals.Pop(server)
	if !ok {
		return false
	}
	p.removing = true
	s.onDisk++
	r := &removeJob{p: p, uid: string(p.wish.UID)}
	for _, v := range p.volumes {
		r.watches = append(r.watches, s.takeWatches(v)...)
	}
	s.jobs = append(s.jobs, job{remove: r})
	return true
}

func (s *state) diskJob(v *volume, now rotation.Time) job {
	if !v.known {
		return job{read: &readJob{v: v, key: v.key, watch: v.watch}}
	}
	c := s.resolve(v)
	files := make([]atomicwriter.File, 0, len(c.files))
	for _, path := range slices.Sorted(maps.Keys(c.files)) {
		files = append(files, c.files[path])
	}
	return job{publish: &publishJob{
		v: v, key: v.key, now: now.Wall, files: files, from: c.from, sweep: v.sweepable(s.server(now)),
		group: s.group(v), refused: slices.Clone(v.refused), mountpoints: v.wish.Mountpoints,
		verify: !v.dirty, watch: v.watch, sent: now,
	}}
}

// sweepable names the versions that have been stale for long enough.
func (v *volume) sweepable(now time.Time) []string {
	var names []string
	for _, old := range v.stale {
		if !now.Before(old.at.Add(staleAge)) {
			names = append(names, old.name)
		}
	}
	return names
}

// wake is when dispatch may have something to do again, as a pause from now;
// never more than a minute, because clocks step and machines sleep.
func (s *state) wake(now rotation.Time) time.Duration {
	pause := time.Minute
	server := s.server(now)
	earlier := func(at time.Time, ok bool) {
		if ok {
			pause = min(pause, at.Sub(server))
		}
	}
	earlier(s.news.Next(server))
	if s.looking < maxLookups {
		earlier(s.lookups.Next(server))
	}
	if s.onDisk < diskWorkers {
		earlier(s.disks.Next(server))
		earlier(s.removals.Next(server))
	}
	if len(s.asked) < s.maxInFlight {
		ok, at := s.outage.Probe(now.Mono)
		if s.refusing {
			earlier(s.mints.Next(server))
		}
		switch {
		case !ok:
			pause = min(pause, at-now.Mono)
		case !s.clock.Doubtful(now) || len(s.asked) == 0:
			earlier(s.mints.Next(server))
		}
	}
	return max(pause, 0)
}
