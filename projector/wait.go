package projector

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/rotation"
)

// ErrEnded says that Run has returned: nobody answers any more.
var ErrEnded = errors.New("projector has ended")

// WaitReady waits until a container of the pod may start: every volume that the
// pod wants is published, and no token in it has expired by the server's time.
// Ready is not for ever: call it before each start.
//
//   - A pod that is known to want nothing is ready at once: it has no token
//     volume (that Config.Selection selects), has succeeded or failed, is a
//     mirror pod, or is not selected.
//   - A pod that is not known is waited for, because the caller may have heard
//     of it first. That includes one whose object is gone.
//   - A volume that cannot be published as it stands (ReasonUnsupported,
//     ReasonInvalid) is a *VolumeError at once. Its message names the volume.
//   - If ctx ends first, the error wraps its cause and says of each volume what
//     is missing. It wraps no *VolumeError: what fails now may come right.
//   - If Run ends first, or has ended, the error is ErrEnded.
func (p *Projector) WaitReady(ctx context.Context, podUID types.UID) error {
	err := p.wait(ctx, &waiter{
		ready: func(s *state, now time.Time) (bool, error) { return s.ready(podUID, now) },
		lacks: func(s *state, now time.Time) string { return s.lacks(podUID, now) },
	})
	if _, permanent := errors.AsType[*VolumeError](err); permanent || err == nil || err == ErrEnded {
		return err
	}
	return fmt.Errorf("wait for the volumes of pod %s: %w", podUID, err)
}

// WaitSynced waits until the list of pods is complete, from when on Status tells
// which pods are gone. Its errors are ErrEnded, and one that wraps the cause of ctx.
func (p *Projector) WaitSynced(ctx context.Context) error {
	err := p.wait(ctx, &waiter{
		ready: func(s *state, _ time.Time) (bool, error) { return s.synced, nil },
		lacks: func(s *state, _ time.Time) string { return s.unlisted("the list") },
	})
	if err == nil || err == ErrEnded {
		return err
	}
	return fmt.Errorf("wait for the list of pods: %w", err)
}

// waiter is somebody who waits for the state to become ready. The owner looks
// after every turn, so that no change can be missed.
type waiter struct {
	ready  func(s *state, now time.Time) (bool, error) // true: answer with the error
	lacks  func(s *state, now time.Time) string        // why it is not ready
	answer chan error                                  // room for one; sent to once, by the owner
}

// wait returns the answer, ErrEnded, or an error that wraps the cause of ctx.
func (p *Projector) wait(ctx context.Context, w *waiter) error {
	w.answer = make(chan error, 1)
	if err := p.query(ctx, func(s *state, _ rotation.Time) { s.waiters[w] = true }); err != nil {
		return err
	}
	select {
	case err := <-w.answer:
		return err
	case <-p.done:
		return ErrEnded
	case <-ctx.Done():
	}
	var lacks string
	err := p.query(context.WithoutCancel(ctx), func(s *state, now rotation.Time) {
		delete(s.waiters, w)
		lacks = w.lacks(s, s.server(now))
	})
	if err != nil {
		return err
	}
	select {
	case err := <-w.answer: // at the last moment
		return err
	default:
		return fmt.Errorf("%w: %s", context.Cause(ctx), lacks)
	}
}

// query is ask with an error: ErrEnded, or the cause of ctx.
func (p *Projector) query(ctx context.Context, e event) error {
	if p.ask(ctx, e) {
		return nil
	}
	select {
	case <-p.done:
		return ErrEnded
	default:
		return context.Cause(ctx)
	}
}

// answer answers the waiters that need wait no more. It never blocks.
func (s *state) answer(now rotation.Time) {
	for w := range s.waiters {
		if ready, err := w.ready(s, s.server(now)); ready {
			delete(s.waiters, w)
			w.answer <- err
		}
	}
}

// ready reports whether a container of the pod may start, or, with an error,
// that it never may.
func (s *state) ready(uid types.UID, now time.Time) (bool, error) {
	if s.idle[uid] {
		return true, nil
	}
	p := s.pods[uid]
	if p == nil || p.gone {
		return false, nil
	}
	ready := true
	for i := range p.wish.Volumes {
		v := p.volumes.find(p.wish.Volumes[i].Name)
		if v.ready(now) {
			continue
		}
		if v.err != nil && v.err.permanent() {
			return true, v.err.in(fmt.Sprintf("volume %q", v.key.Volume))
		}
		ready = false
	}
	return ready, nil
}

// ready reports whether a container may start with the volume.
func (v *volume) ready(now time.Time) bool {
	for i := range v.tokens {
		if t := &v.tokens[i]; !t.shadowed && t.life.Expired(now) {
			return false
		}
	}
	return v.whole && v.mounted() && v.wish.Err == nil
}

// lacks says what keeps the pod's containers from starting.
func (s *state) lacks(uid types.UID, now time.Time) string {
	p := s.pods[uid]
	if p == nil || p.gone {
		return s.unlisted("the pod")
	}
	var lacks []string
	for i := range p.wish.Volumes {
		if v := p.volumes.find(p.wish.Volumes[i].Name); !v.ready(now) {
			lacks = append(lacks, fmt.Sprintf("volume %q: %s", v.key.Volume, v.lacks()))
		}
	}
	return strings.Join(lacks, "; ")
}

// lacks says why a volume is not ready.
func (v *volume) lacks() string {
	switch {
	case v.err != nil:
		return v.err.Error()
	case v.whole && !v.mounted():
		return "what is on disk is being checked"
	case v.whole:
		return "a token in it has expired and is not renewed yet"
	}
	return "not published yet"
}

// unlisted says why nothing is known of what should have come with the pods.
func (s *state) unlisted(what string) string {
	switch {
	case s.podsErr != "":
		return what + " has not come: pods cannot be watched: " + s.podsErr
	case !s.synced:
		return what + " has not come yet"
	}
	return what + " is not, or no longer, among the node's pods"
}
