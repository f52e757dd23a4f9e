package projector

import (
	"math/rand/v2"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// pressed answers at most so many requests a second, and as many at once as burst says; the rest it refuses as API Priority
// and Fairness does.
type pressed struct {
	*rig
	perSecond, burst float64
	room             float64
	filled           time.Duration
	refused          int
}

func (p *pressed) answer(q Request) (Minted, error) {
	p.room = min(p.room+(p.now.Mono-p.filled).Seconds()*p.perSecond, p.burst)
	p.filled = p.now.Mono
	if p.room < 1 {
		p.refused++
		return Minted{}, &MintError{Code: 429, RetryAfter: time.Second, Message: "too many requests"}
	}
	p.room--
	return p.good(q)
}

func newPressed(t *testing.T, perSecond, burst float64) *pressed {
	p := &pressed{rig: newRig(t), perSecond: perSecond, burst: burst}
	p.rig.answer, p.s.sweep = p.answer, 24*time.Hour
	return p
}

// lateness is the longest that a token of pods [from, until) is past its limit now, and how many there are not yet, or have expired.
func (p *pressed) lateness(from, until int) (late time.Duration, missing int) {
	for i := from; i < until; i++ {
		life := p.volume(extra(i)).tokens[0].life
		if life.Expired(p.server()) {
			missing++
			continue
		}
		late = max(late, p.server().Sub(life.Limit()))
	}
	return late, missing
}

// TestPressedServer: a server that answers fifty requests in a second, and refuses the rest, has a thousand pods projected
// in less than twice the twenty seconds that it needs, and then nothing is late; whether it takes fifty at once or one.
func TestPressedServer(t *testing.T) {
	t.Parallel()
	for burst, within := range map[float64]time.Duration{1: 40 * time.Second, 50: 22 * time.Second} {
		p := newPressed(t, 50, burst)
		for i := range 1000 {
			p.apply(lonePod(i, 600))
		}
		p.s.replace(p.wishes(), p.now)
		p.run(within)
		if _, missing := p.lateness(0, 1000); missing > 0 || p.refused == 0 || p.refused > 100 {
			t.Errorf("burst %v: after %v %d tokens are missing, and %d requests were refused", burst, within, missing, p.refused)
		}
		if burst > 1 {
			continue // what follows is easier for such a server
		}
		for n := range 54 { // each token is renewed once at least
			p.run(10 * time.Second)
			if late, missing := p.lateness(0, 1000); late > 2*time.Second || missing > 0 {
				t.Fatalf("burst %v: %d0 s after the first projections %d tokens have expired, and one is %v late", burst, n, missing, late)
			}
		}
		if p.refused > len(p.requests)/20 || p.s.outage.Open() || p.count("probing") > 0 {
			t.Errorf("burst %v: %d of %d requests were refused; outage %v", burst, p.refused, len(p.requests), p.s.outage.Open())
		}
		if a, b := p.count("asking more slowly"), p.count("not as wanted"); a == 0 || a > 2 || b > 0 {
			t.Errorf("burst %v: said %d times that the server is pressed, and %d times that a volume is not in order", burst, a, b)
		}
	}
}

// TestPressedByBoth: a thousand renewals that are due at once, because the machine slept until a minute before the tokens
// expire, and five hundred new pods compete for fifty requests in a second. Neither starves the other.
func TestPressedByBoth(t *testing.T) {
	t.Parallel()
	p := newPressed(t, 1e6, 1e6)
	for i := range 1000 {
		p.apply(lonePod(i, 600))
	}
	p.run(time.Second)
	if _, missing := p.lateness(0, 1000); missing > 0 {
		t.Fatalf("%d tokens are missing", missing)
	}
	p.perSecond, p.burst = 50, 1 // a server that takes more at once is easier
	p.now.Wall = p.now.Wall.Add(535 * time.Second)
	for i := range 500 {
		p.apply(lonePod(1000+i, 600))
	}
	p.run(20 * time.Second)
	if _, missing := p.lateness(1000, 1500); missing > 0 {
		t.Errorf("%d pods still wait for their first token", missing)
	}
	p.run(40 * time.Second)
	if late, expired := p.lateness(0, 1000); expired > 0 || late > 0 {
		t.Errorf("%d tokens have expired, one is %v late", expired, late)
	}
}

// TestPressedByOthers: a server that refuses every other request by chance, however few this node sends, lets none of a thousand
// tokens expire: each is asked for often enough, and not much more often.
func TestPressedByOthers(t *testing.T) {
	t.Parallel()
	r := settled(t, 1000, 600)
	r.s.sweep = 24 * time.Hour
	chance := rand.New(rand.NewPCG(1, 2))
	r.answer = func(q Request) (Minted, error) {
		if chance.IntN(2) == 0 {
			return refusing(429, time.Second)(q)
		}
		return r.good(q)
	}
	for range 90 {
		r.run(10 * time.Second)
		for i := range 1000 {
			if r.volume(extra(i)).tokens[0].life.Expired(r.server()) {
				t.Fatalf("the token of pod %d has expired", i)
			}
		}
	}
	if sent := len(r.requests); sent > 1000*(1+2*2*900/480) {
		t.Errorf("%d requests in a quarter of an hour", sent)
	}
}

// TestRefusedAloneAsTooMany: fifty pods of which every request is refused with 429 slow nobody else down, and are tried on.
func TestRefusedAloneAsTooMany(t *testing.T) {
	r := settled(t, 100, 600)
	r.s.sweep = 24 * time.Hour
	refused := map[types.UID]bool{}
	for i := range 50 {
		refused[uid(50+i)] = true
	}
	r.answer = func(q Request) (Minted, error) {
		if refused[q.PodUID] {
			return refusing(429, time.Second)(q)
		}
		return r.good(q)
	}
	r.run(20 * time.Minute) // all have failed
	asked := len(r.requests)
	for range 3 * 60 {
		r.run(10 * time.Second)
		for i := range 50 {
			if life := r.volume(extra(i)).tokens[0].life; r.server().After(life.Limit().Add(3 * time.Second)) {
				t.Fatalf("pod %d is late", i)
			}
		}
		if r.s.pace.Pressed() || r.s.outage.Open() {
			t.Fatal("the server is thought to be pressed, or out")
		}
	}
	if sent := len(r.requests) - asked; sent > 50*30*60/90+50*5 || sent < 50*30*60/120 { // each in 90 s to 2 min; the rest rotate
		t.Errorf("%d requests in half an hour", sent)
	}
}

// TestNamespaceRefusedAsTooMany: two hundred pods of a namespace in which every request is refused with 429 keep those of another,
// which come with them, waiting for no more than until that is known, and those that come later not at all.
func TestNamespaceRefusedAsTooMany(t *testing.T) {
	t.Parallel()
	r := settled(t, 100, 3600)
	r.s.sweep = 24 * time.Hour
	r.answer = func(q Request) (Minted, error) {
		if q.Namespace == "refused" {
			return refusing(429, time.Second)(q)
		}
		return r.good(q)
	}
	r.run(time.Minute)
	for i := range 200 {
		pod := lonePod(1000+i, 3600)
		pod.Namespace = "refused"
		r.apply(pod)
	}
	for i := range 20 {
		r.apply(lonePod(2000+i, 3600))
	}
	r.run(30 * time.Second)
	if len(r.files) != 120 {
		t.Errorf("after half a minute %d of 120 volumes are there", len(r.files))
	}
	for i := range 60 {
		r.apply(lonePod(3000+i, 3600))
		if r.run(100 * time.Millisecond); len(r.files) != 121+i {
			t.Fatalf("newcomer %d waits", i)
		}
		r.run(20 * time.Second)
	}
	if r.s.pace.Pressed() || r.s.outage.Open() {
		t.Error("the server is thought to be pressed, or out")
	}
}

// TestPressedTurnsIntoOutage: a server that answers nothing any more is out, although it says that it has too much to do.
func TestPressedTurnsIntoOutage(t *testing.T) {
	r := settled(t, 10, 600)
	r.answer = refusing(429, time.Second)
	for i := range 100 {
		r.apply(lonePod(10+i, 600))
	}
	r.run(5 * time.Second)
	if r.s.outage.Open() || !r.s.pace.Pressed() {
		t.Fatalf("outage %v, pressed %v, 5 s after the last answer", r.s.outage.Open(), r.s.pace.Pressed())
	}
	r.run(7 * time.Second)
	asked := len(r.requests)
	r.run(time.Minute)
	if sent := len(r.requests) - asked; !r.s.outage.Open() || sent > 60 || sent < 29 {
		t.Errorf("outage %v, %d requests in a minute", r.s.outage.Open(), sent)
	}
	r.answer = r.good
	r.run(5 * time.Second)
	if len(r.files) != 110 || r.s.outage.Open() {
		t.Errorf("%d of 110 volumes 5 s after the end; outage %v", len(r.files), r.s.outage.Open())
	}
}

// TestSlowStart: after an outage a node does not ask for everything at once, but soon.
func TestSlowStart(t *testing.T) {
	r := settled(t, 200, 600)
	r.answer = refusing(503, 0)
	r.run(10 * time.Minute)
	r.answer = r.good
	asked := len(r.requests)
	for r.s.outage.Open() {
		r.run(10 * time.Millisecond)
	}
	ended, first := r.now.Mono, len(r.requests)
	if first > asked+2 {
		t.Errorf("%d requests at once", first-asked)
	}
	for len(r.requests) < asked+200 && r.now.Mono < ended+10*time.Second {
		r.run(10 * time.Millisecond)
	}
	if took := r.now.Mono - ended; took < 200*time.Millisecond || took > 600*time.Millisecond {
		t.Errorf("the tokens of 200 pods were asked for within %v", took)
	}
}
