package projector

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/metrics"
	"github.com/token-projector/token-projector/rotation"
)

// fields name the pod in a log line. Of one that was gone before the daemon began, only the UID is known.
func (w *Wish) fields() []zap.Field {
	return []zap.Field{zap.String("namespace", w.Namespace), zap.String("pod", w.Name), zap.String("pod_uid", string(w.UID))}
}

// fields name the volume in a log line.
func (v *volume) fields() []zap.Field {
	w := &v.pod.wish
	return append(w.fields(), zap.String("volume", v.key.Volume))
}

// report settles what is wrong with a volume, the cause before its effects, and
// says so when it changes: once, not at every attempt.
func (s *state) report(v *volume, sources *VolumeError, now time.Time) {
	err := v.wish.Err
	for _, e := range append([]*VolumeError{v.diskErr, sources, v.account.err()}, v.tokenErrors()...) {
		if err == nil {
			err = e
		}
	}
	old := v.err
	v.err = err
	s.say(v)
	if (err == nil) != (old == nil) || err != nil && err.Reason != old.Reason {
		s.announce(v, now)
	}
}

// say logs what is wrong with a volume, if that has changed. What the root suffers from is said once for all of them.
func (s *state) say(v *volume) {
	switch {
	case v.err == nil && v.said != "":
		s.log.Info("volume is in order again", v.fields()...)
		v.said = ""
	case v.err == nil, v.err.Reason == v.said, v.err == v.diskErr && v.fault != "":
	default:
		v.said = v.err.Reason
		s.log.Warn("volume is not as wanted", append(v.fields(), zap.String("reason", v.err.Reason), zap.String("error", v.err.Message))...)
	}
}

// faultsOfTheRoot are the errors of the kernel that no pod causes in its own directory alone.
var faultsOfTheRoot = []unix.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.EMFILE, unix.ENFILE}

// blame takes in how the latest disk job of a volume or pod has ended: for want of space, say. *fault is by which error
// of the kernel it failed, "" for none; volume is "" for the pod's directory. Each is logged when it begins, with the first that it met, and when it
// has let go of all: a full disk fails a hundred volumes at once. It reports whether err is of that kind.
func (s *state) blame(fault *string, err error, w *Wish, volume string) bool {
	is, was := "", *fault
	if errno, ok := errors.AsType[unix.Errno](err); ok && slices.Contains(faultsOfTheRoot, errno) {
		is = errno.Error()
	}
	begun, ended := s.faults.change(fault, is)
	if begun {
		s.log.Error("work on the root fails; what is published stays, the rest is tried again every few seconds. Said once for all pods",
			append(w.fields(), zap.String("volume", volume), zap.String("fault", is), zap.Error(err))...)
	}
	if ended {
		s.log.Info("work on the root no longer fails", zap.String("fault", was))
	}
	return is != ""
}

// troubles counts who suffers from each kind of failure, so that one is said when it begins, and when it has let go of all.
type troubles map[string]int

// change takes in that what suffered from *was suffers from is now; "": from nothing.
func (t troubles) change(was *string, is string) (begun, ended bool) {
	if *was == is {
		return false, false
	}
	if is != "" {
		t[is]++
		begun = t[is] == 1
	}
	if *was != "" {
		if t[*was]--; t[*was] == 0 {
			delete(t, *was)
			ended = true
		}
	}
	*was = is
	return begun, ended
}

func (v *volume) tokenErrors() []*VolumeError {
	var errs []*VolumeError
	for i := range v.tokens {
		if t := &v.tokens[i]; !t.shadowed { // nobody asks for it any more
			errs = append(errs, t.err)
		}
	}
	return errs
}

// condition is the volume's state, as in the metric label state.
func (v *volume) condition() string {
	switch {
	case v.detached:
		return "detached"
	case v.err != nil:
		return "failed"
	case v.whole:
		return "ready"
	}
	return "pending"
}

// condition is the token's state, as in the metric label state.
func (t *token) condition(now time.Time) string {
	switch {
	case t.life.Expires.IsZero():
		return "pending"
	case t.life.Expired(now):
		return "expired"
	case t.dead, !now.Before(t.life.Limit()):
		return "stale"
	}
	return "fresh"
}

// snapshot counts everything for a scrape. Pods whose tokens are dead by now,
// because they have been terminating for too long, do not count.
func (s *state) snapshot(now rotation.Time) metrics.Snapshot {
	server := s.server(now)
	snap := metrics.Snapshot{
		Tokens: map[string]int{}, Volumes: map[string]int{}, VolumeErrors: map[string]int{},
		QueueLength: s.mints.Len(), LockHeld: true,
	}
	snap.ClockSkew, snap.SkewKnown = s.clock.Skew(now)
	for _, p := range s.pods {
		if p.gone || s.retired(p) {
			continue
		}
		for _, v := range p.volumes {
			if !v.gone {
				v.count(&snap, server)
			}
		}
	}
	return snap
}

func (v *volume) count(snap *metrics.Snapshot, now time.Time) {
	snap.Volumes[v.condition()]++
	if v.err != nil {
		snap.VolumeErrors[v.err.Reason]++
	}
	if v.unwatched() {
		snap.WatchDegraded = true
	}
	for i := range v.tokens {
		t := &v.tokens[i]
		if t.shadowed {
			continue
		}
		snap.Tokens[t.condition(now)]++
		if e := t.life.Expires; !e.IsZero() && (snap.EarliestExpiration.IsZero() || e.Before(snap.EarliestExpiration)) {
			snap.EarliestExpiration = e
		}
	}
}

// Snapshot reports the state of all tokens and volumes now. It returns false
// if the owner did not answer before ctx ended, or is not running.
func (p *Projector) Snapshot(ctx context.Context) (metrics.Snapshot, bool) {
	var snap metrics.Snapshot
	ok := p.ask(ctx, func(s *state, now rotation.Time) { snap = s.snapshot(now) })
	return snap, ok
}

// Responsive reports whether the owner answers before ctx ends.
func (p *Projector) Responsive(ctx context.Context) bool {
	return p.ask(ctx, func(*state, rotation.Time) {})
}

// Synced reports whether the pod list is complete.
func (p *Projector) Synced(ctx context.Context) bool {
	var synced bool
	return p.ask(ctx, func(s *state, _ rotation.Time) { synced = s.synced }) && synced
}
