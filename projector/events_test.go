package projector

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
)

// told are the events since the last call.
func (r *rig) told() []string {
	var events []string
	for {
		select {
		case e := <-r.events.Events:
			events = append(events, e)
		default:
			return events
		}
	}
}

func (r *rig) expectTold(when string, want ...string) {
	r.t.Helper()
	got := r.told()
	if len(got) != len(want) {
		r.t.Fatalf("%s: told %q, want %q", when, got, want)
	}
	for i := range want {
		for part := range strings.SplitSeq(want[i], "|") {
			if !strings.Contains(got[i], part) {
				r.t.Errorf("%s: told %q, which lacks %q", when, got[i], part)
			}
		}
	}
}

// TestEventOfAMissingObject: told when it has lasted for the grace, again now and then while it lasts, and once
// when it is over. Reason, what is missing and what to do are in the event.
func TestEventOfAMissingObject(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0))
	r.drain()
	r.s.touch(rootCA, nil, r.now)
	r.run(eventGrace - 1)
	r.expectTold("before the grace is over")
	r.run(1)
	r.expectTold("after it", `Warning ProjectionFailed|volume "kube-api-access-x"|ObjectMissing|kube-root-ca.crt does not exist|create it`)
	r.run(eventEvery - 1)
	r.expectTold("while it lasts")
	r.run(1)
	r.expectTold("again", "Warning ProjectionFailed|kube-root-ca.crt")
	r.touchCA()
	r.drain()
	r.expectTold("when it is over", `Normal ProjectionRecovered|volume "kube-api-access-x"`)
	r.run(2 * eventEvery)
	r.expectTold("in order")
}

// TestNoEventOfALag: a refusal at the pod's start that is soon over is not told.
func TestNoEventOfALag(t *testing.T) {
	r := newRig(t)
	r.answer = refusing(http.StatusForbidden, 0)
	r.apply(lonePod(1, 600))
	r.run(time.Second)
	r.answer = r.good
	r.run(time.Hour)
	r.expectTold("after a lag")
	if r.volume(extra(1)).err != nil || r.made == 0 {
		t.Error("it is not over")
	}
}

// TestEventOfARefusal: of a refresh, says that the token stays; another reason is told at once.
func TestEventOfARefusal(t *testing.T) {
	r := settled(t, 1, 600)
	r.answer = refusing(http.StatusForbidden, 0)
	r.run(480*time.Second + eventGrace)
	r.expectTold("refused", "Warning ProjectionFailed|TokenRequestFailed|403|what is published stays in place")
	r.broken = errors.New("disk is broken")
	r.s.verify(extra(0), r.now)
	r.run(time.Second)
	r.expectTold("and the disk fails", "Warning ProjectionFailed|DiskFailed")
}

// TestEventOfAnImpossibleVolume: told at once. A pod that goes takes its events with it.
func TestEventOfAnImpossibleVolume(t *testing.T) {
	r := newRig(t)
	pod := lonePod(1, 600)
	pod.Spec.Volumes[0].Projected.DefaultMode = nil
	r.apply(pod)
	r.drain()
	r.expectTold("at once", "Warning ProjectionFailed|Invalid|defaultMode")
	r.s.forget(pod.UID, r.now)
	r.run(2 * eventEvery)
	r.expectTold("of a pod that is gone")
}

// TestEventsAcrossAStep: a step of the server's time neither loses nor delays what is to be told.
func TestEventsAcrossAStep(t *testing.T) {
	for _, step := range []time.Duration{-time.Hour, time.Hour} {
		r := newRig(t)
		r.apply(testPod(1, "", 0))
		r.drain()
		r.s.touch(rootCA, nil, r.now)
		r.run(time.Second)
		r.ahead += step
		r.s.hear(r.server(), r.now, r.now)
		r.run(eventGrace)
		r.expectTold("after the step", "Warning ProjectionFailed|kube-root-ca.crt")
	}
}

// TestJumpsTellNothingAnew: two API servers whose clocks are 5 s apart answer in turn. A failure that has been
// told is told again every ten minutes, not at each answer; one that is new is told after its grace.
func TestJumpsTellNothingAnew(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0)) // its configMap is missing
	r.s.touch(rootCA, nil, r.now)
	r.run(10 * time.Second)
	if n := len(r.events.Events); n != 1 {
		t.Fatalf("told %d times", n)
	}
	for i := range 60 { // a minute
		server := r.server()
		if i%2 == 0 {
			server = server.Add(5 * time.Second)
		}
		r.s.hear(server, r.now, r.now)
		r.run(time.Second)
	}
	if n := len(r.events.Events); n != 1 {
		t.Errorf("told %d times in a minute", n)
	}
	fresh := newRig(t)
	fresh.apply(testPod(1, "", 0))
	fresh.s.touch(rootCA, nil, fresh.now)
	for i := range 60 {
		server := fresh.server()
		if i%2 == 0 {
			server = server.Add(5 * time.Second)
		}
		fresh.s.hear(server, fresh.now, fresh.now)
		fresh.run(time.Second)
	}
	if n := len(fresh.events.Events); n == 0 {
		t.Error("a minute of failure, and nobody was told")
	}
}
