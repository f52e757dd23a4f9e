package projector

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/rotation"
)

// world plays a history: the rig's owner, server and disk, with jobs that take
// time and clocks that lie, and the judges of judges_test.go.
type world struct {
	*wander
	history history
	at      time.Duration // true time since the history began
	wrong   string        // the first thing that went wrong; "": nothing yet
	plant   func(*world)

	pods    map[int]*livePod
	minted  map[string]issue // tokens that are on disk or on their way there
	content []byte           // of every configMap; nil: there are none
	renewed time.Duration    // true time when that last changed
	faults  []happening      // of the server and of the disk; some are over
	flights []flight
	turned  time.Duration // Mono, when the owner last did
	wakeAt  time.Duration // of the owner, in Mono
	listAt  time.Duration // true time of the next list, which tells all changes; zero: none is needed
	upAt    time.Duration // when the daemon is started again; zero: it runs
	kill    string        // at which moment it is to be killed
	down    time.Duration // and for how long
	asleep  *happening    // a suspend that begins with the next request; nil: none
	stopped map[int]bool  // by the runtime

	told     reading       // what the latest answer told of the server's time
	backed   bool          // the server's clock was put back at some time
	stepped  time.Duration // when it was moved last; zero: never
	unheard  bool          // it was moved, and no answer has told so yet
	asked    time.Duration // when the latest Retry-After ends
	answered time.Duration // when the server last gave an answer that ends an outage
	granted  time.Duration // when it last gave a token
	askers   int           // how many tokens there were then
	troubled time.Duration // when the latest fault of the server ends
	moved    time.Duration // Mono, when a local clock moved last
	look     bool          // at the state after the next turn
	turns    int
	idle     int // turns without any time passing
}

// reading is all clocks at one moment.
type reading struct {
	server time.Time
	mono   time.Duration
	wall   time.Time
}

// issue is one token: for whom, and its life.
type issue struct {
	request Request
	life    rotation.Lifetime
}

// flight is a job that takes until at. A request's answer is made when it is sent.
type flight struct {
	job      job
	at       time.Duration
	minted   Minted
	fault    string // what it met; "": none
	err      error
	date     time.Time // of the answer; zero: none comes
	stale    bool      // a clock was moved, or stood still, while it was under way
	misleads bool      // and nothing tells the daemon so
}

// livePod is a pod as the API server has it.
type livePod struct {
	n       int
	pod     *corev1.Pod
	comes   time.Duration
	gone    bool // it wants nothing any more: it has succeeded, or its object is deleted
	deleted bool
	quiet   time.Duration // nothing disturbs its directory from then on
	tokens  []*liveToken
}

// liveToken is one token source of a pod, and what is on disk of it.
type liveToken struct {
	pod     *livePod
	key     Key
	request Request
	path    string
	data    string            // of the token on disk; "" if nobody knows
	life    rotation.Lifetime // of the token on disk; zero: there is none, or nobody knows what it is
	quiet   time.Duration     // nothing disturbs its renewal from then on
	wide    bool              // the one on disk may be the first of its kind, or one that came late
	adopted time.Time         // server time when the daemon found it on disk; zero: it did not
	last    time.Duration     // true time of the latest answer; zero: none
	doubted bool              // it was issued in the server's future, once
	excused bool              // something explains one more request
	opened  time.Duration     // true time when its failure opened an outage; zero: not since its last success
}

// play plays a history to its end, or until something is wrong. plant, if not
// nil, spoils things after each turn, to see that it is found.
func play(t testing.TB, h history, plant func(*world)) *world {
	r := newRig(t)
	r.config.MaxInFlight, r.config.Sweep, r.config.AwaitStopped = h.MaxInFlight, h.Sweep, h.AwaitStopped
	w := &world{
		wander: &wander{rig: r, wanted: map[int]bool{}}, history: h, plant: plant, pods: map[int]*livePod{}, stopped: map[int]bool{},
		minted: map[string]issue{}, content: []byte("a"),
	}
	w.ahead, w.heard = h.Skew, false // it hears as hearAnswer says
	w.start()
	for _, e := range h.Events {
		if w.until(e.At); w.wrong == "" {
			w.happen(e)
		}
	}
	w.until(max(historyLength, w.at))
	w.finishHistory()
	return w
}

func (w *world) fail(format string, args ...any) {
	if w.wrong == "" {
		w.wrong = fmt.Sprintf(format, args...)
	}
}

// elapse lets all clocks run.
func (w *world) elapse(d time.Duration) {
	if d > 0 {
		w.idle = 0
	}
	w.pass(d)
	w.at += d
}

// until lets time pass, and all happen that follows from what is there already.
func (w *world) until(end time.Duration) {
	for w.wrong == "" {
		next := min(end, w.judge())
		if w.upAt > 0 {
			next = min(next, w.upAt)
		} else {
			next = min(next, w.at+w.wakeAt-w.now.Mono)
		}
		if w.listAt > 0 {
			next = min(next, w.listAt)
		}
		for i := range w.flights {
			next = min(next, w.flights[i].at)
		}
		w.elapse(max(next-w.at, 0))
		if !w.act() && w.at >= end {
			return
		}
	}
}

// act does one thing whose time has come, and reports whether there was any.
func (w *world) act() bool {
	i := slices.IndexFunc(w.flights, func(f flight) bool { return f.at <= w.at })
	switch {
	case w.upAt > 0 && w.upAt <= w.at:
		w.start()
	case w.listAt > 0 && w.listAt <= w.at:
		w.list()
	case i >= 0:
		f := w.flights[i]
		w.flights = slices.Delete(w.flights, i, i+1)
		w.land(f)
	case w.upAt == 0 && w.wakeAt <= w.now.Mono:
	default:
		return false
	}
	w.step()
	return true
}

// step is one turn of the owner.
func (w *world) step() {
	if w.upAt > 0 || w.wrong != "" {
		return
	}
	for _, j := range w.turn() {
		w.take(j)
	}
	w.giveUp()
	w.tellObjects()
	w.fallAsleep()
	if w.plant != nil {
		w.plant(w)
	}
	w.turned = w.now.Mono
	w.wakeAt = w.turned + w.sleep()
	for len(w.rig.events.Events) > 0 {
		<-w.rig.events.Events
	}
	w.turns++
	w.look = w.look || w.turns%32 == 0 // every turn would take too long
	if w.idle++; w.idle > 1000 || w.turns > mostTurns {
		w.fail("the owner is busy for nothing: turn %d, %d of them at once", w.turns, w.idle)
	}
	if w.look {
		w.check()
	}
}

// mostTurns is far above what the work of any history takes.
const mostTurns = 500_000

// sleep is for how long the owner sleeps. Between two events of a history all
// clocks run evenly, so that of the minutes in which nothing can be due only
// the last is played.
func (w *world) sleep() time.Duration {
	pause := w.s.wake(w.now)
	if pause < time.Minute {
		return pause
	}
	server := w.s.server(w.now)
	next := server.Add(historyLength)
	for _, at := range []func(time.Time) (time.Time, bool){w.s.mints.Next, w.s.disks.Next, w.s.news.Next, w.s.removals.Next} {
		if t, ok := at(server); ok && t.Before(next) {
			next = t
		}
	}
	if w.s.outage.Open() {
		return pause
	}
	return max(next.Sub(server).Truncate(time.Minute), pause)
}
