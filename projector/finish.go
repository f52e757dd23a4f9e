package projector

import (
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/rotation"
)

// end takes back a volume from a job and reports whether it is still wanted.
func (s *state) end(v *volume, now rotation.Time) bool {
	v.busy = false
	if v.pod.gone {
		s.settle(v.pod, now)
		return false
	}
	if v.gone {
		s.abandon(v)
		return false
	}
	if v.hinted { // by a request that looked at nothing
		v.hinted = false
		s.verifyVolume(v, now)
	}
	return true
}

// finishMint takes in the answer to a mintJob.
func (s *state) finishMint(j *mintJob, m Minted, err error, now rotation.Time) {
	s.asked = slices.DeleteFunc(s.asked, func(a *mintJob) bool { return a == j })
	if !m.ServerTime.IsZero() {
		s.hear(m.ServerTime, j.sent, now)
	}
	if err == nil && s.clock.Heard() {
		err = m.untimely(s.server(now))
	}
	label := "201"
	var failed *MintError
	if err != nil {
		failed = asMintError(err)
		label = failed.label()
	}
	if j.givenUp && failed != nil && failed.ofServer() { // as we wanted: nobody's failure
		if s.end(j.v, now) {
			s.plan(j.v, s.server(now))
		}
		return
	}
	s.metrics.TokenRequest(label, now.Mono-j.sent.Mono, now.Wall)
	if failed == nil {
		s.refused = nil
	}
	if failed == nil || !failed.ofServer() {
		s.pace.Answered(now.Mono)
		s.tellPace(now)
		delete(s.crowds, j.request.Namespace)
	}
	// Any answer that is not of an outage ends it, if it is news; one of refusals is ended by a success.
	if failed == nil || !failed.ofServer() && !s.refusing && !s.foreseen(&j.v.tokens[j.token]) {
		hanging := !s.refusing // a server that refuses answers promptly
		if s.outage.Succeeded(j.sent.Mono) {
			s.pace.Start(now.Mono)
			s.release(failed == nil, now)
			if hanging {
				s.overtake(j.sent.Mono, failed == nil)
			}
		}
	}
	wanted := s.end(j.v, now)
	t := &j.v.tokens[j.token]
	switch {
	case failed == nil && wanted:
		t.fresh, t.next, t.took = m.Token, m.Lifetime, s.server(now).Add(-now.Since(j.sent))
		t.failures, t.suspect, t.blamed, t.err, t.retryAt = 0, false, false, nil, time.Time{}
		s.heedMint(j.v, t, m.AccountUID, j.sent.Mono, now)
	case failed != nil:
		s.failMint(j, t, failed, wanted, now)
	}
	if wanted {
		server := s.server(now)
		s.examine(j.v, server)
		s.plan(j.v, server)
	}
}

// failMint spaces the next attempt of a token: behind the probes if the server
// is out, else by its own backoff.
func (s *state) failMint(j *mintJob, t *token, failed *MintError, wanted bool, now rotation.Time) {
	server := s.server(now)
	wasOpen, retryAfter := s.outage.Open(), failed.RetryAfter
	ofServer := failed.ofServer()
	t.blamed = t.blamed && ofServer
	if s.press(j, t, failed, now) {
		return
	}
	foreseen := !ofServer && s.foreseen(t)
	if !ofServer && !foreseen && !t.suspect && s.refusesAll(j.v, now.Mono) {
		ofServer = true
		if j.probe { // what is asked for beside the probes must not put them off
			retryAfter = max(retryAfter, min((now.Mono-s.refusedAt)/refusedPatience, time.Minute))
		}
	}
	if foreseen {
		if wanted {
			s.hold(j.v, t)
		}
	} else if ofServer && s.outage.Failed(j.sent.Mono, now.Mono, retryAfter, t.suspect || t.blamed) {
		if !wasOpen {
			s.refusing = !failed.ofServer()
			s.pace.Lift()
			s.log.Warn("API server does not grant token requests; probing", zap.String("error", failed.Error()))
		}
		s.struck[j.request.Namespace] = true
		if wanted {
			s.hold(j.v, t)
		}
	} else {
		t.suspect = t.suspect || failed.ofServer() && !t.blamed
		s.backOff(t, failed, server)
	}
	if !j.early { // such a probe changes nothing yet
		t.err = volumeErrorf(ReasonTokenRequest, "token %q (audience %q): %v; %s", t.source.Path, t.source.Audience, failed, failed.advice())
	}
}

// backOff spaces the next attempt of a token that fails alone.
func (s *state) backOff(t *token, failed *MintError, server time.Time) {
	t.failures++
	pause := rotation.Backoff(t.seed, t.failures, t.life.Expires.Sub(server))
	t.retryAt = server.Add(max(pause, min(failed.RetryAfter, time.Minute)))
}

// found is what a disk job says of a volume's directory.
type found struct {
	watch    watchHandle
	detached bool // the directory is another one than before
	stale    []string
	err      error // the job has failed
	leftover error // it has not, but an old version could not be swept
	blocked  error // nor that, but something is in the place of a mount point, and not ours to remove
}

// tend takes in what every disk job learns.
func (s *state) tend(v *volume, f found, now time.Time) {
	s.noteWatches(v, f.watch.blind)
	s.rewatch(v, f.watch, now)
	if f.detached && !v.detached {
		v.detached = true
		s.log.Warn("volume directory was deleted or replaced; containers still hold the old one until they restart", v.fields()...)
	}
	v.noteStale(f.stale, now)
	failed := errors.Join(f.err, f.leftover)
	unfinished := goesOn(failed, &v.parts)
	if unfinished {
		failed = nil
	}
	v.retryAt, v.restAt, v.diskErr = time.Time{}, time.Time{}, nil
	if wrong := errors.Join(failed, f.blocked); wrong != nil {
		v.diskErr = volumeErrorf(ReasonDisk, "%v", wrong)
	}
	if !v.gone && !v.pod.gone {
		s.blame(&v.fault, failed, &v.pod.wish, v.key.Volume)
	}
	pause := unfinishedPause
	if failed != nil {
		v.failures++
		pause = rotation.Backoff(v.seed(), v.failures, v.soonest(now).Sub(now))
	} else if v.failures = 0; !unfinished {
		return
	}
	if f.err != nil { // a disk that has space again, or may be written again, tells nobody
		pause = min(pause, diskRetry)
	}
	v.verifyAt = now.Add(pause)
	v.restAt = v.verifyAt
	if f.err != nil { // what is left over keeps nothing new back
		v.retryAt = v.verifyAt
	}
}

// noteStale takes in which versions are there that are not current, oldest first.
func (v *volume) noteStale(names []string, now time.Time) {
	since := make(map[string]time.Time, len(v.stale)) // a pod may make very many
	for _, old := range v.stale {
		since[old.name] = old.at
	}
	var stale []staleVersion
	for _, name := range names {
		at, ok := since[name]
		if !ok {
			at = now
		}
		stale = append(stale, staleVersion{name, at})
	}
	slices.SortFunc(stale, func(a, b staleVersion) int { return a.at.Compare(b.at) })
	v.stale = stale
}

// rewatch takes over the watches that a job has set. A hint that outran the job
// is not lost.
func (s *state) rewatch(v *volume, h watchHandle, now time.Time) {
	for _, fd := range v.watch.descriptors() {
		delete(s.watched, fd)
	}
	v.watch, v.verifyAt = h, v.sweepAt(now, s.sweepOf(h))
	for _, fd := range h.descriptors() {
		s.watched[fd] = v
		v.hinted = v.hinted || s.stray[fd]
		delete(s.stray, fd)
	}
	if v.hinted {
		v.hinted, v.verifyAt = false, now.Add(hintDelay)
	}
}

// seed tells volumes apart when all of them retry at once.
func (v *volume) seed() rotation.Seed { return rotation.NewSeed(string(v.key.PodUID), v.key.Volume) }

// finishPublish takes in the outcome of a publishJob.
func (s *state) finishPublish(j *publishJob, r atomicwriter.Result, f found, now rotation.Time) {
	s.onDisk--
	v, server := j.v, s.server(now)
	s.observePublish(j, r, f, now)
	s.tend(v, f, server)
	s.noteRefused(v, j.refused)
	v.mountpoints, v.linked = j.mountpoints, v.linked || f.err == nil || r.Outcome == atomicwriter.Written
	wanted := s.end(v, now)
	switch {
	case f.err != nil && r.Outcome != atomicwriter.Written: // after the swap, an error is about leftovers
	case r.Outcome == atomicwriter.Incomplete:
		s.lose(v, r.Lost)
	default:
		s.commit(v, j, r, now)
	}
	if wanted {
		s.examine(v, server)
		s.plan(v, server)
	}
}

// noteRefused takes in which owners may not be given, so that nobody tries again.
func (s *state) noteRefused(v *volume, refused []atomicwriter.Owner) {
	v.refused = refused
	if len(refused) > 0 && !s.unowned {
		s.unowned = true
		o := refused[0]
		s.log.Warn("may not give files to the owners that pods want; publishing them as this process's own, never more readable than asked. "+
			"Run with the capabilities CHOWN, DAC_OVERRIDE, FOWNER and FSETID, as the manifests in deploy do, or where pods run as this process's user",
			append(v.fields(), zap.Int("user", o.UID), zap.Int("group", o.GID))...)
	}
}

func (s *state) observePublish(j *publishJob, r atomicwriter.Result, f found, now rotation.Time) {
	result := "unchanged"
	switch {
	case f.err != nil:
		result = "error"
	case r.Outcome == atomicwriter.Written:
		result = "written"
	}
	s.metrics.Publish(result, now.Mono-j.sent.Mono)
	if f.err == nil && (r.Outcome == atomicwriter.Incomplete || j.verify && r.Outcome != atomicwriter.Unchanged) {
		s.metrics.Repaired()
		j.v.storm(s.server(now))
		if j.v.pace == hintDelay {
			s.log.Warn("volume was altered on disk; repairing", j.v.fields()...)
		}
	}
}

// storm slows repairs down while somebody keeps altering the volume.
func (v *volume) storm(now time.Time) {
	if now.Sub(v.repairedAt) > calmAfter {
		v.pace = 0
	}
	v.pace, v.repairedAt = max(min(2*v.pace, maxPace), hintDelay), now
}

// lose takes in that files to be carried over are not on disk any more: their
// tokens are minted anew, at once.
func (s *state) lose(v *volume, paths []string) {
	for _, path := range paths {
		v.files = v.files.without(path)
		for i := range v.tokens {
			if t := &v.tokens[i]; t.source.Path == path {
				t.vanish()
			}
		}
	}
}

// vanish takes in that the token is not on disk any more.
func (t *token) vanish() {
	t.fresh, t.life, t.due, t.floor = Token{}, rotation.Lifetime{}, time.Time{}, time.Time{}
	t.uid, t.nextUID, t.dead, t.anew = "", "", false, false
}

// commit takes in that a version with everything the job held is current.
func (s *state) commit(v *volume, j *publishJob, r atomicwriter.Result, now rotation.Time) {
	v.version = r.Version
	v.files = make(versionFiles, 0, len(j.files))
	for i, f := range j.files { // sorted
		v.files = append(v.files, published{path: f.Path, sum: r.Sums[i], mode: f.Mode, owner: *f.Owner, from: j.from[f.Path]})
	}
	for i := range v.tokens {
		t := &v.tokens[i]
		file, _ := v.files.find(t.source.Path)
		switch on := file.sum; {
		case !t.fresh.empty() && on == sha256.Sum256(t.fresh.reveal()):
			t.sum = on
			s.commitToken(v, t, now)
		case on != t.sum: // a later source has its path; should that go, a token is minted anew
			t.vanish()
		}
	}
	if !v.whole {
		v.whole = true
		s.noteWatches(v, v.watch.blind)
		s.metrics.FirstProjection(now.Mono - v.seen)
		s.log.Info("volume published", v.fields()...)
	}
	if s.published != nil && r.Outcome == atomicwriter.Written {
		s.published(Published{Key: v.key, Version: r.Version})
	}
}

// commitToken takes in that the fresh token is on disk.
func (s *state) commitToken(v *volume, t *token, now rotation.Time) {
	wide := t.life.Expires.IsZero() || t.anew
	if !t.life.Expires.IsZero() {
		late := s.server(now).Sub(t.life.Limit())
		// What an outage delayed comes with all that it delayed. An answer that is old when it comes makes no outage.
		wide = wide || late > 0 && s.server(now).Before(t.next.Limit())
		s.metrics.RefreshLateness(late)
		s.log.Debug("token refreshed", append(v.fields(), zap.String("path", t.source.Path), zap.Duration("late_seconds", max(late, 0)))...)
	}
	t.life, t.fresh, t.uid, t.nextUID = t.next, Token{}, t.nextUID, ""
	t.floor = t.life.Floor(t.took, wide)
	t.due = t.life.Due(t.seed, wide)
	t.anew = false
}

// finishRemove takes in that a pod's directory is gone, or could not be removed.
func (s *state) finishRemove(j *removeJob, err error, now rotation.Time) {
	s.onDisk--
	p := j.p
	if p == nil {
		return
	}
	p.removing = false
	w := &p.wish
	shared := s.blame(&p.fault, err, w, "")
	switch {
	case p.again != nil:
		s.revive(p, now)
	case err == nil:
		delete(s.pods, p.wish.UID)
		delete(s.stopped, p.wish.UID)
		s.log.Info("pod directory removed", w.fields()...)
	case goesOn(err, &p.parts):
		at := s.server(now).Add(unfinishedPause)
		s.removals.Set(p, at, at)
	default:
		p.failures++
		if p.failures == 1 && !shared {
			s.log.Warn("pod directory could not be removed; trying on", append(w.fields(), zap.Error(err))...)
		}
		pause := rotation.Backoff(rotation.NewSeed(j.uid), p.failures, 0)
		if shared {
			pause = min(pause, diskRetry)
		}
		at := s.server(now).Add(pause)
		s.removals.Set(p, at, at)
	}
}
