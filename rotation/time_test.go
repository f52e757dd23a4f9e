package rotation

import (
	"testing"
	"time"
)

// local is a machine on which both clocks run well since the epoch.
func local(since time.Duration) Time { return Time{Mono: since, Wall: epoch.Add(since)} }

// stepped is local after the wall clock was stepped by that much.
func stepped(since, step time.Duration) Time {
	return Time{Mono: since, Wall: epoch.Add(since + step)}
}

// suspended is local after the machine slept for that long.
func suspended(since, slept time.Duration) Time {
	return Time{Mono: since, Wall: epoch.Add(since + slept)}
}

const second = time.Second

// heard returns a clock that heard the true time at local(0).
func heard(server time.Time) ServerClock {
	var c ServerClock
	c.Hear(server, local(0), local(0))
	return c
}

func TestServerClockNeverHeard(t *testing.T) {
	var c ServerClock
	at := stepped(5*second, time.Hour)
	if got := c.Now(at); !got.Equal(at.Wall) {
		t.Errorf("now %v, want the local wall time %v", got, at.Wall)
	}
	if c.Heard() || c.Doubtful(at) {
		t.Error("heard or doubtful before any answer")
	}
	if skew, known := c.Skew(at); known || skew != 0 {
		t.Errorf("skew %v, %v before any answer", skew, known)
	}
}

// TestServerClockElapsed: since the answer passes the larger of the monotonic
// and the wall time, and never less than nothing.
func TestServerClockElapsed(t *testing.T) {
	server := epoch.Add(-5 * time.Hour) // the local clock is five hours fast
	c := heard(server)
	for name, tt := range map[string]struct {
		at   Time
		want time.Duration
	}{
		"at once":              {local(0), 0},
		"both run":             {local(time.Hour), time.Hour},
		"wall back":            {stepped(time.Hour, -3*time.Hour), time.Hour},
		"wall ahead":           {stepped(time.Hour, 3*time.Hour), 4 * time.Hour},
		"suspended":            {suspended(time.Hour, 8*time.Hour), 9 * time.Hour},
		"an older reading":     {local(-time.Minute), 0},
		"older, and wall back": {stepped(-time.Minute, -time.Hour), 0},
	} {
		if got := c.Now(tt.at).Sub(server); got != tt.want {
			t.Errorf("%s: %v since the answer, want %v", name, got, tt.want)
		}
	}
	if skew, known := c.Skew(local(time.Hour)); !known || skew != 5*time.Hour {
		t.Errorf("skew %v, %v, want 5h", skew, known)
	}
}

// TestDoubtfulEdge: doubt begins beyond 2 s of disagreement, either way.
func TestDoubtfulEdge(t *testing.T) {
	c := heard(epoch)
	for step, want := range map[time.Duration]bool{
		0: false, 2 * second: false, 2*second + 1: true, -2 * second: false, -2*second - 1: true,
	} {
		if got := c.Doubtful(stepped(time.Hour, step)); got != want {
			t.Errorf("step of %v: doubtful %v", step, got)
		}
	}
	c.Hear(epoch.Add(time.Hour), stepped(time.Hour, time.Hour), stepped(time.Hour, time.Hour))
	if c.Doubtful(stepped(2*time.Hour, time.Hour)) {
		t.Error("doubtful after an answer has settled the step")
	}
}

// TestHear: servers cut off the fraction of the second, so what is heard is an
// interval. An estimate inside it stays, any other moves to the nearer end.
func TestHear(t *testing.T) {
	const rtt = 300 * time.Millisecond
	sent, received := local(time.Hour), local(time.Hour+rtt)
	for name, tt := range map[string]struct {
		says, moves time.Duration // relative to the estimate at received
	}{
		"exact":                 {0, 0},
		"cut off":               {-999 * time.Millisecond, 0},
		"oldest that agrees":    {-second - rtt, 0},
		"1 ns older":            {-second - rtt - 1, -1},
		"1 ns newer":            {1, 1},
		"a minute behind":       {-time.Minute, -time.Minute + second + rtt},
		"a minute ahead":        {time.Minute, time.Minute},
		"an hour behind":        {-time.Hour, -time.Hour + second + rtt},
		"within the round trip": {-rtt, 0},
	} {
		c := heard(epoch)
		before := c.Now(received)
		moved := c.Hear(before.Add(tt.says), sent, received)
		if moved != tt.moves || c.Now(received).Sub(before) != moved {
			t.Errorf("%s: reports %v, moved %v, want %v", name, moved, c.Now(received).Sub(before), tt.moves)
		}
	}
}

// TestHearFirstAndDoubted: the first answer is taken as it is, and in doubt as ever.
func TestHearFirstAndDoubted(t *testing.T) {
	server := epoch.Add(42 * time.Minute)
	var c ServerClock
	if moved := c.Hear(server, local(0), local(second)); moved != 42*time.Minute-second || !c.Heard() {
		t.Errorf("first answer moves by %v", moved)
	}
	if got := c.Now(local(second)); !got.Equal(server) {
		t.Errorf("now %v, want %v", got, server)
	}
	// The wall clock leaps ahead for an hour: Now is an hour ahead until the server speaks.
	at := stepped(time.Minute+second, time.Hour)
	if ahead := c.Now(at).Sub(server); ahead != time.Hour+time.Minute {
		t.Errorf("after the step %v have passed", ahead)
	}
	if moved := c.Hear(server.Add(time.Minute), at, at); moved != second-time.Hour {
		t.Errorf("the answer moves by %v, want -1h and the second that servers leave out", moved)
	}
	if got := c.Now(at).Sub(server); got != time.Minute+second {
		t.Errorf("after it %v have passed", got)
	}
}

// TestHearAfterSleep: an answer that was under way while the machine slept, or while
// somebody stepped the wall clock, tells nothing, and leaves the doubt there is.
func TestHearAfterSleep(t *testing.T) {
	sent, received := local(time.Hour), suspended(time.Hour+second, 8*time.Hour)
	for name, says := range map[string]time.Duration{"from before": time.Hour, "from after": 9 * time.Hour} {
		c := heard(epoch)
		before := c.Now(received)
		if moved := c.Hear(epoch.Add(says), sent, received); moved != 0 || !c.Now(received).Equal(before) || !c.Doubtful(received) {
			t.Errorf("%s: moves by %v, doubtful %v", name, moved, c.Doubtful(received))
		}
	}
	var first ServerClock
	if first.Hear(epoch, sent, received); !first.Heard() {
		t.Error("the first answer is ignored")
	}
}

// TestHearLateInDoubt: an answer that both clocks agree was under way for an hour, because
// the process was stopped, does not put the estimate back by an hour, though it is in doubt.
func TestHearLateInDoubt(t *testing.T) {
	c := heard(epoch)
	sent, received := stepped(time.Hour, -time.Minute), stepped(2*time.Hour, -time.Minute)
	if moved := c.Hear(epoch.Add(time.Hour), sent, received); moved != 0 || c.Doubtful(received) {
		t.Errorf("moves by %v, doubtful %v", moved, c.Doubtful(received))
	}
}

// TestHearOftenStaysTight: thousands of answers with the fraction cut off and
// any delay never pull the estimate out of the truth's second.
func TestHearOftenStaysTight(t *testing.T) {
	var c ServerClock
	for i := range 5000 {
		sent := time.Duration(i) * 777 * time.Millisecond
		rtt := time.Duration(i%40) * 25 * time.Millisecond
		made := epoch.Add(sent + rtt/2)
		c.Hear(made.Truncate(time.Second), local(sent), local(sent+rtt))
		off := c.Now(local(sent + rtt)).Sub(epoch.Add(sent + rtt))
		if off > second || off < -2*second {
			t.Fatalf("answer %d: %v off", i, off)
		}
		if i > 100 && (off > second/2 || off < -second) {
			t.Fatalf("answer %d: still %v off", i, off)
		}
	}
}

func TestSystemClock(t *testing.T) {
	clock := SystemClock()
	a := clock()
	b := clock()
	if b.Mono < a.Mono || a.Mono < 0 || a.Mono > time.Minute {
		t.Errorf("mono %v, then %v", a.Mono, b.Mono)
	}
	if wall := a.Wall; wall != wall.Round(0) || time.Since(wall).Abs() > time.Minute {
		t.Errorf("wall %v", wall)
	}
}
