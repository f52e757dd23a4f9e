package rotation

import (
	"testing"
	"time"
)

// sends is how many requests go out until end, each answered at once, by ask.
func sends(p *Pace, now *time.Duration, end time.Duration, ask func(now time.Duration)) (n int) {
	for *now < end {
		ok, at := p.Ready(*now)
		if !ok {
			*now = max(at, *now+1)
			continue
		}
		p.Sent(*now)
		ask(*now)
		if n++; p.rate == 0 {
			*now += ms
		}
	}
	return n
}

func TestPaceInOrder(t *testing.T) {
	var p Pace
	for now := range time.Duration(100) {
		p.Sent(now)
		p.Answered(now)
		if ok, _ := p.Ready(now); !ok || p.Pressed() {
			t.Fatal("the zero value is a bound")
		}
	}
}

// TestPaceStart: after an outage the first few requests are spaced, each by half the time of the one before, and then none is.
func TestPaceStart(t *testing.T) {
	p, now := NewPace(1), time.Hour
	p.Start(now)
	for gap, n := time.Second/8, 0; p.rate > 0; gap, n = gap/2, n+1 {
		ok, at := p.Ready(now)
		if wait := at - now; ok || wait < gap*9/10-1 || wait > gap*11/10+1 || n > 8 {
			t.Fatalf("request %d after %v, want %v", n, wait, gap)
		}
		now = at
		p.Sent(now)
		p.Answered(now)
	}
	if ok, _ := p.Ready(now); !ok || now > time.Hour+300*ms {
		t.Errorf("held back after %v", now-time.Hour)
	}
	p.Start(now)
	p.Lift()
	if ok, _ := p.Ready(now); !ok {
		t.Error("held back although it was lifted")
	}
}

// TestPaceFindsTheServersRate: of servers of many sizes one node gets most of what they can do, with few refusals.
func TestPaceFindsTheServersRate(t *testing.T) {
	for _, perSecond := range []int{1, 5, 50, 500} {
		p, now, free, granted, refused := NewPace(7), time.Hour, time.Duration(0), 0, 0
		sends(&p, &now, time.Hour+5*time.Minute, func(now time.Duration) {
			if now < free {
				refused++
				p.Refused(now, now)
				return
			}
			free = now + time.Second/time.Duration(perSecond)
			granted++
			p.Answered(now)
		})
		if could := 300 * perSecond; granted < could/2 || refused > granted && perSecond > 1 || refused == 0 {
			t.Errorf("of %d a second: %d granted of %d, %d refused", perSecond, granted, could, refused)
		}
	}
}

// TestPaceRefusals: those that were under way together halve the rate once; the first one halves what was granted.
func TestPaceRefusals(t *testing.T) {
	p, now := NewPace(1), time.Hour
	for range 64 {
		p.Answered(now)
	}
	for range 15 {
		p.Refused(now, now+5*ms)
	}
	if p.rate != 32 || !p.Pressed() {
		t.Errorf("%v a second after 64 grants, want 32", p.rate)
	}
	p.Refused(now+6*ms, now+7*ms)
	p.Answered(now + 8*ms)
	if p.rate != 17 {
		t.Errorf("%v a second, want 17", p.rate)
	}
	for i := range time.Duration(10) {
		p.Refused(now+(20+i)*ms, now+(20+i)*ms)
	}
	if p.rate != leastRate {
		t.Errorf("%v a second, want %v", p.rate, leastRate)
	}
	if p.AtLeast(3); p.rate != 3 {
		t.Errorf("%v a second, want the 3 that are needed", p.rate)
	}
	if ok, _ := p.Ready(now + 29*ms + calmAfter - 1); !ok || !p.Pressed() {
		t.Error("calm too soon")
	}
	if ok, _ := p.Ready(now + 29*ms + calmAfter); !ok || p.Pressed() || p.rate != 0 {
		t.Error("pressed for ever")
	}
	if p.AtLeast(3); p.rate != 0 {
		t.Error("bound by what it needs")
	}
}

// TestPaceForgetsOldGrants: what was granted in other seconds says nothing of what the server can do now.
func TestPaceForgetsOldGrants(t *testing.T) {
	for age, want := range map[time.Duration]float64{500 * ms: 50, 1500 * ms: 50, 2500 * ms: leastRate} {
		p := NewPace(1)
		for range 100 {
			p.Answered(time.Hour)
		}
		p.Answered(time.Hour + age)
		p.Refused(time.Hour+age, time.Hour+age)
		if p.rate < want || p.rate > want+1 {
			t.Errorf("%v later: %v a second, want %v", age, p.rate, want)
		}
	}
}

// TestOutagePressed: who answers others is pressed, and who answers nobody is out.
func TestOutagePressed(t *testing.T) {
	o := NewOutage(1)
	if o.Pressed(0, 0) {
		t.Error("pressed, and has never answered")
	}
	o.Succeeded(time.Hour)
	for failures, want := range map[int]bool{0: true, lonely - 1: true, lonely: false} {
		if got := o.Pressed(time.Hour+calmAfter-1, failures); got != want {
			t.Errorf("%d failures: %v", failures, got)
		}
	}
	if o.Pressed(time.Hour+calmAfter, 0) {
		t.Error("pressed, and has not answered for long")
	}
	o.Failed(time.Hour, time.Hour, 0, false)
	if o.Pressed(time.Hour, 0) {
		t.Error("pressed while it is out")
	}
}

// TestOutageSingled: three refusals in a row, with an answer to others since the first, are one's own.
func TestOutageSingled(t *testing.T) {
	o := NewOutage(1)
	o.Succeeded(time.Hour)
	if o.Singled(time.Hour, time.Hour+time.Second, lonely) {
		t.Error("singled out, and nobody was answered since")
	}
	o.Succeeded(time.Hour + time.Second)
	if o.Singled(time.Hour, time.Hour+time.Second, lonely-1) || !o.Singled(time.Hour, time.Hour+time.Second, lonely) {
		t.Errorf("not after %d refusals, and just then", lonely)
	}
	if o.Singled(time.Hour, time.Hour+time.Second+calmAfter, lonely) {
		t.Error("singled out, and nobody has been answered for long")
	}
}
