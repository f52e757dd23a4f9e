package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCalendar: events come in the order of their times, those of one time in the order in which they were planned, those that
// are planned meanwhile too.
func TestCalendar(t *testing.T) {
	c := newCalendar(10 * time.Second)
	for id, at := range []time.Duration{3 * time.Second, 1500 * time.Millisecond, time.Second, 1500 * time.Millisecond, time.Hour} {
		c.add(at, event{token: uint32(id)})
	}
	var got []uint32
	for {
		e, at, ok := c.pop()
		if !ok {
			break
		}
		got = append(got, e.token)
		if e.token == 2 {
			c.add(at+200*time.Millisecond, event{token: 10})
			c.add(at+500*time.Millisecond, event{token: 11})
			c.add(at+5*time.Second, event{token: 12})
		}
	}
	want := []uint32{2, 10, 1, 3, 11, 0, 12}
	if !slices.Equal(got, want) {
		t.Errorf("played %v, want %v", got, want)
	}
}

// TestServer: it answers in turn, refuses when too many wait, works for who has given up, and is out when it is out.
func TestServer(t *testing.T) {
	s := server{perSecond: 2, waiting: 30, outFrom: time.Hour, outUntil: 2 * time.Hour}
	for i := range 20 {
		if a := s.ask(0, giveUp); !a.ok || a.at != time.Duration(i+1)*time.Second/2 {
			t.Errorf("request %d: %+v", i, a)
		}
	}
	for i := 20; i < 30; i++ {
		if a := s.ask(0, giveUp); a.ok || a.at != giveUp || a.retryAfter != 0 {
			t.Errorf("request %d is answered too late: %+v", i, a)
		}
	}
	if a := s.ask(0, giveUp); a.ok || a.at != 0 || a.retryAfter != retryAfter {
		t.Errorf("request 30 is one too many: %+v", a)
	}
	if a := s.ask(time.Minute, giveUp); !a.ok || a.at != time.Minute+time.Second/2 {
		t.Errorf("a minute later: %+v", a)
	}
	if a := s.ask(time.Hour, giveUp); a.ok || a.at != time.Hour || a.retryAfter != 0 {
		t.Errorf("out: %+v", a)
	}
}

func played(t *testing.T, s scenario, name string) counts {
	t.Helper()
	for _, r := range rules {
		if r.name == name {
			return play(s, r.new)
		}
	}
	t.Fatalf("no rule %q", name)
	return counts{}
}

func named(t *testing.T, name string) scenario {
	t.Helper()
	for _, s := range scenarios(20, 2_000, 6*time.Hour) {
		if s.name == name {
			return s
		}
	}
	t.Fatalf("no scenario %q", name)
	return scenario{}
}

// TestScaleUp: every pod has a token, each is refreshed each 48 minutes at most, none expires, and the daemon's requests are
// spread where the kubelet's come together.
func TestScaleUp(t *testing.T) {
	s := named(t, "scale-up")
	of, beside := played(t, s, "daemon"), played(t, s, "kubelet")
	for _, c := range []counts{of, beside} {
		unanswered := c.total(0, s.length) - c.firsts - c.renewed // when the run ends
		if c.firsts != s.pods || c.expired != 0 || c.failures != 0 || unanswered < 0 || unanswered > 5 {
			t.Errorf("%d first tokens, %d expired, %d failures, %d renewed of %d requests", c.firsts, c.expired, c.failures, c.renewed, c.total(0, s.length))
		}
		if least := 7 * s.pods; c.renewed < least { // six hours hold 7.5 times 80 % of a lifetime
			t.Errorf("renewed %d times, want %d", c.renewed, least)
		}
	}
	ours, theirs := of.peak(time.Hour, s.length, 10), beside.peak(time.Hour, s.length, 10)
	if ours*3 > theirs {
		t.Errorf("peaks of %.1f and %.1f requests a second", ours, theirs)
	}
}

// TestRestartedFleet: the daemons ask for nothing that they have, the kubelets for all.
func TestRestartedFleet(t *testing.T) {
	s := named(t, "restart")
	minute := func(c counts) int { return c.total(s.event, s.event+time.Minute) }
	if n := minute(played(t, s, "kubelet")); n < s.pods {
		t.Errorf("the kubelets asked for %d of %d tokens", n, s.pods)
	}
	if n := minute(played(t, s, "daemon")); n > s.pods/10 {
		t.Errorf("the daemons asked for %d of %d tokens", n, s.pods)
	}
	one, two := played(t, s, "daemon"), played(t, s, "daemon")
	if !slices.Equal(one.requests, two.requests) {
		t.Error("a second run was another")
	}
}

// TestRollingRestart: the daemons ask for nothing more than without any restart, whenever each starts anew.
func TestRollingRestart(t *testing.T) {
	quiet, rolling := played(t, named(t, "scale-up"), "daemon"), played(t, named(t, "rolling"), "daemon")
	if a, b := quiet.total(0, 6*time.Hour), rolling.total(0, 6*time.Hour); b > a+5 || b < a-5 { // a request that was under way is lost, and sent again
		t.Errorf("%d requests, and %d with restarts", a, b)
	}
	s := named(t, "rolling")
	beside := played(t, s, "kubelet")
	if n := beside.total(s.event, s.event+s.rolling); n < s.pods {
		t.Errorf("the kubelets asked for %d of %d tokens", n, s.pods)
	}
}

// TestPressedFleet: a server that refuses most at first gives all pods their tokens in less than three times the time that it needs.
func TestPressedFleet(t *testing.T) {
	s := named(t, "pressed")
	c := played(t, s, "daemon")
	least := time.Duration(float64(s.pods) / s.server.perSecond * float64(time.Second))
	if c.failures == 0 || c.firsts != s.pods || c.last > 3*least || c.expired > 0 {
		t.Errorf("%d refused, %d of %d pods have a token after %v, where %v is the least; %d expired", c.failures, c.firsts, s.pods, c.last, least, c.expired)
	}
}

// TestRandom: the peak of what comes at random is near the mean for many requests, and far above it for few.
func TestRandom(t *testing.T) {
	few, many := random(1, 24*time.Hour), random(1000, 10*time.Minute)
	if few < 2 || few > 4 || many < 1.01 || many > 1.1 {
		t.Errorf("%.2f of few, %.2f of many", few, many)
	}
}

// TestOutage: while the server is out a node asks once in a second at most; all is well again afterwards.
func TestOutage(t *testing.T) {
	s := named(t, "outage")
	c := played(t, s, "daemon")
	if n := c.peak(s.event+time.Minute, s.server.outUntil, 10); n > float64(s.nodes) {
		t.Errorf("%.1f requests a second of %d nodes", n, s.nodes)
	}
	if c.failures == 0 {
		t.Error("nothing failed")
	}
	if late := s.length - s.server.outUntil; c.late > late/2 {
		t.Errorf("a token was %v late", c.late)
	}
}

// TestShortLived: a pod that ends takes its requests along, and the next one has a token of its own.
func TestShortLived(t *testing.T) {
	s := named(t, "short-lived")
	c := played(t, s, "daemon")
	if c.pods < 20*s.pods || c.firsts < c.pods || c.firsts > c.pods+s.pods {
		t.Errorf("%d pods ended, %d had a token", c.pods, c.firsts)
	}
	if total := c.total(0, s.length); total < c.firsts || total > c.firsts*3/2 {
		t.Errorf("%d requests for %d pods", total, c.firsts)
	}
}

// TestPace: the kubelet's client sends a hundred requests at once, and then fifty a second.
func TestPace(t *testing.T) {
	k := &kubelet{rand.New(rand.NewPCG(1, 1))}
	n, now, sent := &node{tokens: kubeletBurst}, time.Duration(0), 0
	for now < time.Second {
		next := k.pace(n, now)
		if next == now {
			sent++
		}
		now = next
	}
	if sent < 145 || sent > 151 {
		t.Errorf("%d requests in the first second, want 150", sent)
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	var out, complaints bytes.Buffer
	if code := run([]string{"--nodes", "10", "--pods", "200", "--for", "3h", "--scenario", "restart", "--out", filepath.Join(dir, "new")}, &out, &complaints); code != 0 {
		t.Fatalf("exit %d: %s", code, complaints.String())
	}
	if !strings.Contains(out.String(), "peak ÷ mean") || strings.Count(out.String(), "\n| restart |") != len(rules) || strings.Contains(out.String(), "NaN") {
		t.Errorf("printed %s", out.String())
	}
	text, err := os.ReadFile(filepath.Join(dir, "new", "restart.csv"))
	if err != nil || !strings.HasPrefix(string(text), "second,kubelet,daemon\n0,") || strings.Count(string(text), "\n") != 1+3*360 {
		t.Errorf("%v: %.60q", err, text)
	}
	if png, err := os.ReadFile(filepath.Join(dir, "new", "restart.png")); err != nil || !bytes.HasPrefix(png, []byte("\x89PNG")) {
		t.Errorf("no picture: %v", err)
	}
	for _, args := range [][]string{{"--pods", "1"}, {"--for", "1m"}, {"--scenario", "none"}, {"surplus"}, {"--nodes", "x"}} {
		complaints.Reset()
		if code := run(args, &out, &complaints); code == 0 || complaints.Len() == 0 {
			t.Errorf("%v: exit %d, %q", args, code, complaints.String())
		}
	}
}
