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
	s.retryWatches(now)
	for s.onDisk < diskWorkers && s.diskNext(now) { // first: a request may keep its volume for long
	}
	for len(s.asked) < s.maxInFlight && s.mintNext(now) {
	}
	for s.looking < maxLookups && s.lookNext(now) {
	}
}

// want is one token of a volume, to be asked for. The zero value is none.
type want struct {
	v *volume
	t *token
}

// mintNext starts the mint that is wanted most, if any may be sent now.
func (s *state) mintNext(now rotation.Time) bool {
	w, probing := s.nextMint(s.server(now), now)
	if w.t == nil {
		return false
	}
	if probing {
		s.outage.Probing(now.Mono)
	} else {
		s.pace.Sent(now.Mono)
	}
	s.startMint(w.v, w.t, now)
	s.asked[len(s.asked)-1].probe = probing
	return true
}

// nextMint picks the token to ask for, if any, and tells whether that probes a server that is out.
func (s *state) nextMint(server time.Time, now rotation.Time) (w want, probing bool) {
	if s.refusing && s.knowsTime(now) { // what was not refused yet may be granted, and does not wait for the rest
		if w := s.popDue(server); w.t != nil {
			return w, false
		}
	}
	switch ok, _ := s.outage.Probe(now.Mono); {
	case !ok:
		return want{}, false
	case s.outage.Open():
		return s.probe(server), true
	case !s.knowsTime(now):
		return want{}, false
	}
	if ok, _ := s.pace.Ready(now.Mono); !ok {
		return want{}, false
	}
	return s.popDue(server), false
}

// knowsTime reports whether what is due may be asked for. While the clock is in doubt one answer is to tell the time, so
// that the rest can be judged.
func (s *state) knowsTime(now rotation.Time) bool {
	return len(s.asked) == 0 || !s.clock.Doubtful(now)
}

// popDue takes the token that is due and wanted most, if any is.
func (s *state) popDue(server time.Time) want {
	for v, ok := s.mints.Pop(server); ok; v, ok = s.mints.Pop(server) {
		if t := s.nextToken(v); t != nil { // nil: retired since it was queued
			return want{v, t}
		}
	}
	return want{}
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
	if s.blind {
		pause = min(pause, s.watchAt-now.Mono)
	}
	if s.looking < maxLookups {
		earlier(s.lookups.Next(server))
	}
	if s.onDisk < diskWorkers {
		earlier(s.disks.Next(server))
		earlier(s.removals.Next(server))
	}
	if len(s.asked) < s.maxInFlight {
		ok, at := s.outage.Probe(now.Mono)
		if !ok {
			pause = min(pause, at-now.Mono)
		}
		if (ok || s.refusing) && s.knowsTime(now) {
			ready, then := s.pace.Ready(now.Mono)
			due, some := s.mints.Next(server)
			if soonest := server.Add(then - now.Mono); !ready && due.Before(soonest) {
				due = soonest
			}
			earlier(due, some)
		}
	}
	return max(pause, 0)
}
