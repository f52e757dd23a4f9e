package main

import (
	"math/rand/v2"
	"time"

	"github.com/token-projector/token-projector/rotation"
)

// scenario is what happens to a fleet.
type scenario struct {
	name, about string
	nodes, pods int           // one token a pod
	created     time.Duration // all pods come in this time, at random
	lives       time.Duration // a pod's mean life, after which another takes its place; 0: for ever
	length      time.Duration // of the run
	event       time.Duration // when something happens to the whole fleet; 0: never
	restart     bool          // what happens is that all daemons start anew,
	rolling     time.Duration // one after another in this time; 0: at once
	ttl         time.Duration // of each token
	server      server
}

// inFlight is how many requests of a node are under way at most (projector.DefaultMaxInFlight).
const inFlight = 16

// node is one daemon.
type node struct {
	pending rotation.Queue[uint32] // due, and not asked for yet
	flying  int
	run     uint32        // counts its starts
	wakes   time.Duration // a wake is planned for then
	outage  rotation.Outage
	pace    rotation.Pace
	tokens  float64 // of the kubelet's rate limit, as of filled
	filled  time.Duration
}

// fleet plays one scenario by one rule.
type fleet struct {
	scenario
	rule   rule
	random *rand.Rand
	events *calendar
	nodes  []node
	tokens []token
	count  counts
}

// play returns what the fleet's requests were.
func play(s scenario, by func(*rand.Rand) rule) counts {
	random := rand.New(rand.NewPCG(1, uint64(s.pods)))
	f := &fleet{
		scenario: s, rule: by(random), random: random,
		events: newCalendar(s.length), nodes: make([]node, s.nodes), tokens: make([]token, s.pods),
		count: counts{requests: make([]int32, int(s.length/time.Second))},
	}
	for n := range f.nodes {
		f.nodes[n] = node{outage: rotation.NewOutage(seed(uint32(n))), pace: rotation.NewPace(seed(uint32(n))), tokens: kubeletBurst}
		if s.restart {
			f.events.add(s.event+s.rolling*time.Duration(n)/time.Duration(s.nodes), event{what: restart, node: uint32(n)})
		}
	}
	for id := range f.tokens {
		f.tokens[id] = token{node: uint32(id % s.nodes), wide: true}
		f.arrive(uint32(id), time.Duration(random.Float64()*float64(s.created)))
	}
	for {
		e, now, ok := f.events.pop()
		if !ok {
			return f.count
		}
		f.happen(e, now)
	}
}

// arrive is a new pod: its token is due at once.
func (f *fleet) arrive(id uint32, now time.Duration) {
	t := &f.tokens[id]
	t.born = now
	f.events.add(now, event{what: due, node: t.node, token: id, pod: t.pod})
	if f.lives > 0 {
		end := now + time.Duration(f.random.ExpFloat64()*float64(f.lives))
		f.events.add(end, event{what: podEnded, token: id, pod: t.pod})
	}
}

func (f *fleet) happen(e event, now time.Duration) {
	t := &f.tokens[e.token]
	switch e.what {
	case due:
		if e.pod == t.pod {
			f.due(e.token, t, now)
		}
	case again:
		if e.pod == t.pod {
			f.wait(e.token, t)
			f.dispatch(t.node, now)
		}
	case granted, failed:
		f.answered(e, t, now)
	case wake:
		if f.nodes[e.node].wakes <= now {
			f.nodes[e.node].wakes = 0
		}
		f.dispatch(e.node, now)
	case restart:
		f.restarted(e.node, now)
	case podEnded:
		f.replace(e.token, t, now)
	}
}

// due: the token waits for its node to ask for it.
func (f *fleet) due(id uint32, t *token, now time.Duration) {
	t.due = now
	f.wait(id, t)
	f.dispatch(t.node, now)
}

// wait has the token asked for as soon as its node may; what expires first goes first, what there is none of yet before all.
func (f *fleet) wait(id uint32, t *token) {
	expires := epoch
	if t.have {
		expires = at(t.issued + f.ttl)
	}
	f.nodes[t.node].pending.Set(id, at(t.due), expires)
}

// dispatch sends what the node may send now.
func (f *fleet) dispatch(of uint32, now time.Duration) {
	n := &f.nodes[of]
	for n.pending.Len() > 0 && n.flying < inFlight {
		may, when := n.outage.Probe(now)
		if may && n.outage.Open() && n.flying > 0 {
			return // one probe at a time; its answer dispatches again
		}
		if may && !n.outage.Open() {
			may, when = n.pace.Ready(now)
		}
		if may {
			when = f.rule.pace(n, now)
			may = when == now
		}
		if !may {
			f.wakeAt(of, when, now)
			return
		}
		if n.outage.Open() {
			n.outage.Probing(now)
		} else {
			n.pace.Sent(now)
		}
		if id, ok := n.pending.Pop(at(now)); ok {
			f.ask(id, &f.tokens[id], now)
		}
	}
}

func (f *fleet) wakeAt(of uint32, then, now time.Duration) {
	n := &f.nodes[of]
	then = max(then+time.Millisecond-1, now+time.Millisecond).Truncate(time.Millisecond) // as events are; not before
	if n.wakes == 0 || then < n.wakes {
		n.wakes = then
		f.events.add(then, event{what: wake, node: of})
	}
}

func (f *fleet) ask(id uint32, t *token, now time.Duration) {
	f.nodes[t.node].flying++
	f.count.request(now)
	a := f.server.ask(now, f.rule.patience())
	e := event{what: failed, node: t.node, token: id, pod: t.pod, run: f.nodes[t.node].run, sent: now, after: a.retryAfter}
	if a.ok {
		e.what = granted
	}
	f.events.add(a.at, e)
}

// answered is what the node does with an answer.
func (f *fleet) answered(e event, t *token, now time.Duration) {
	n := &f.nodes[e.node]
	if e.run != n.run {
		return // whoever asked is gone
	}
	n.flying--
	current := e.pod == t.pod
	if e.what == granted {
		n.pace.Answered(now)
		if n.outage.Succeeded(e.sent) {
			n.pace.Start(now)
		}
		if current {
			f.hold(e, t, now)
		}
	} else {
		f.count.failures++
		retry, alone := f.rule.fail(n, e, t, f.ttl, now)
		switch {
		case !current:
		case alone:
			t.failed++
			f.events.add(retry, event{what: again, node: e.node, token: e.token, pod: t.pod})
		default:
			f.wait(e.token, t)
		}
	}
	f.dispatch(e.node, now)
}

// hold is a new token in its file.
func (f *fleet) hold(e event, t *token, now time.Duration) {
	wide := !t.have
	if t.have {
		f.count.refreshed(now, t.due, t.issued+f.ttl)
		wide = at(now).After(life(t, f.ttl).Limit()) // late, as after an outage
	} else {
		f.count.firsts++
		if t.pod == 0 {
			f.count.last = now
		}
	}
	t.wide, t.have, t.issued, t.failed = wide, true, e.sent, 0
	f.events.add(f.rule.refresh(e.token, t, f.ttl), event{what: due, node: e.node, token: e.token, pod: t.pod})
}

// restarted: requests that were under way are lost, and each token is due when a starting daemon finds it so.
func (f *fleet) restarted(of uint32, now time.Duration) {
	n := &f.nodes[of]
	*n = node{run: n.run + 1, outage: rotation.NewOutage(seed(of)), pace: rotation.NewPace(seed(of)), tokens: kubeletBurst, filled: now}
	for id := int(of); id < len(f.tokens); id += len(f.nodes) {
		t := &f.tokens[id]
		t.pod++ // what is planned is forgotten
		then := now
		if t.have {
			then = f.rule.adopt(uint32(id), t, f.ttl, now)
		}
		f.events.add(then, event{what: due, node: of, token: uint32(id), pod: t.pod})
	}
}

// replace ends a pod, and puts another in its place.
func (f *fleet) replace(id uint32, t *token, now time.Duration) {
	f.count.pods++
	f.nodes[t.node].pending.Remove(id)
	*t = token{node: t.node, wide: true, pod: t.pod + 1}
	f.arrive(id, now)
}
