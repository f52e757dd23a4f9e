package projector

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/rotation"
)

// clocked is a node of a few pods whose clocks somebody plays with, and the true server time's view of it.
type clocked struct {
	*rig
	restarted bool
	wide      map[Key]bool // the token is the first of its kind, or came late
	needless  int          // tokens asked for that were not due by the server's true time
	expired   int          // tokens that were seen expired
}

const clockedPods = 4

func newClocked(t *testing.T, ahead time.Duration) *clocked {
	c := &clocked{rig: newRig(t), wide: map[Key]bool{}}
	c.rig.ahead = ahead
	c.rig.s.clock = rotation.ServerClock{}
	c.start(c.rig)
	return c
}

// start is a daemon's start, the first answer of which tells the server's time.
func (c *clocked) start(r *rig) {
	c.rig = r
	r.answer = func(q Request) (Minted, error) { return c.judge(r, q) }
	r.s.hear(r.server(), r.now, r.now)
	for i := range clockedPods {
		r.apply(lonePod(i, []int64{600, 3600}[i%2]))
	}
	r.s.replace(r.wishes(), r.now)
	r.drain()
}

func (c *clocked) restart() {
	c.rig.flying = nil
	c.restarted = true
	c.start(c.rig.restarted(time.Second))
}

// judge counts a request that comes before the token's own due time. Whether a token has the
// wider spread is not known after a restart.
func (c *clocked) judge(r *rig, q Request) (Minted, error) {
	k := Key{q.PodUID, "extra"}
	token := &r.volume(k).tokens[0]
	due := token.life.Due(token.seed, c.wide[k])
	if other := token.life.Due(token.seed, true); c.restarted && other.Before(due) {
		due = other
	}
	if !token.life.Expires.IsZero() && r.server().Before(due.Add(-2*time.Second)) {
		c.needless++
	}
	c.wide[k] = r.server().After(token.life.Limit())
	return r.good(q)
}

// watch runs for so long and looks at every token again and again, as a reader would.
func (c *clocked) watch(long time.Duration) {
	for end := c.now.Mono + long; c.now.Mono < end; {
		c.run(5 * time.Second)
		for i := range clockedPods {
			if c.onDisk(extra(i), "extra-token").Lifetime.Expired(c.server()) {
				c.expired++
			}
		}
	}
}

// TestClocks: whatever a clock does, with a restart or without, no token is seen expired, and none is asked for in vain
// but the one that finds out how late it is.
func TestClocks(t *testing.T) {
	t.Parallel()
	const suspended = 30 * time.Minute
	faults := map[string]struct {
		ahead    time.Duration // the server's clock before the machine's, from the start
		do       func(*rig)
		needless int
	}{
		"right":                   {0, func(*rig) {}, 0},
		"machine ahead 1 h":       {-time.Hour, func(*rig) {}, 0},
		"machine behind 1 h":      {time.Hour, func(*rig) {}, 0},
		"stepped +1 h":            {0, func(r *rig) { r.step(time.Hour) }, 1},
		"stepped -1 h":            {0, func(r *rig) { r.step(-time.Hour) }, 0},
		"stepped +10 min":         {0, func(r *rig) { r.step(10 * time.Minute) }, 1},
		"stepped -10 min":         {0, func(r *rig) { r.step(-10 * time.Minute) }, 0},
		"suspended, Mono stands":  {0, func(r *rig) { r.now.Wall = r.now.Wall.Add(suspended) }, 0},
		"suspended, Mono runs on": {0, func(r *rig) { r.pass(suspended) }, 0},
	}
	for name, fault := range faults {
		for _, restart := range []string{"", "after", "before"} {
			c := newClocked(t, fault.ahead)
			c.watch(7 * time.Minute)
			if restart == "before" {
				c.restart()
			}
			fault.do(c.rig)
			if restart == "after" {
				c.restart()
			}
			c.run(2 * time.Second) // what a suspended machine let expire is renewed in this time
			c.watch(60 * time.Minute)
			if c.expired > 0 || c.needless > fault.needless {
				t.Errorf("%s, restart %q: %d requests in vain, at most %d expected; %d times an expired token", name, restart, c.needless, fault.needless, c.expired)
			}
			t.Logf("%s, restart %q: %d in vain, %d expired", name, restart, c.needless, c.expired)
		}
	}
}

// TestClocksSees: the counts of TestClocks count.
func TestClocksSees(t *testing.T) {
	c := newClocked(t, 0)
	c.watch(time.Minute)
	token := &c.volume(extra(1)).tokens[0]
	token.due, token.floor = c.server(), c.server()
	c.s.plan(c.volume(extra(1)), c.server())
	c.watch(time.Minute)
	if c.needless != 1 {
		t.Errorf("%d requests in vain, and one was planted", c.needless)
	}
	c.answer = func(Request) (Minted, error) { return Minted{}, errors.New("out") }
	c.watch(11 * time.Minute)
	if c.expired == 0 {
		t.Error("expired tokens go unseen")
	}
}

// TestTerminatingWhileInDoubt: the wall clock steps past the end of a terminating pod's tokens, which is all that the
// node has. They are asked for when they are due, so that the time is heard; and when they are dead, no more.
func TestTerminatingWhileInDoubt(t *testing.T) {
	r := settled(t, 1, 600)
	pod := lonePod(0, 600)
	deleted := metav1.NewTime(r.server().Add(20 * time.Minute))
	pod.DeletionTimestamp = &deleted
	r.apply(pod)
	r.step(time.Hour)
	r.run(time.Second)
	if len(r.requests) != 2 || r.s.retired(r.s.pods[uid(0)]) {
		t.Errorf("%d requests, believed to be dead: %v", len(r.requests), r.s.retired(r.s.pods[uid(0)]))
	}
	r.run(21*time.Minute - time.Second - 1)
	if r.onDisk(extra(0), "extra-token").Lifetime.Expired(r.server()) {
		t.Error("the token has expired before its pod's end")
	}
	asked := len(r.requests)
	r.run(time.Hour)
	if len(r.requests) != asked || !r.s.retired(r.s.pods[uid(0)]) {
		t.Errorf("%d requests for dead tokens", len(r.requests)-asked)
	}
}
