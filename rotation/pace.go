package rotation

import "time"

const (
	// startRate is how many requests a second a node sends at first after an outage, twice as many after each answer: all
	// other nodes do the same, and the server may be able to answer few of them.
	startRate = 8.0
	// fullRate is as good as no bound.
	fullRate = 1000.0
	// leastRate is what a refusal leaves: as slow as the probes of an outage.
	leastRate = 0.5
	// calmAfter is how long after the latest refusal a pressed server is in order again, and how long after its latest
	// answer one that refuses is out.
	calmAfter = 10 * time.Second
)

// Pace bounds the rate of a node's requests to a server that has just been out, or that is pressed: it
// answers, and refuses what is too much for it with 429. A refusal halves the rate, an answer raises it by
// one a second, so that it doubles in the time of as many requests; after an outage it begins low, and each
// answer doubles it. The nodes of a fleet find their share like this, and one alone finds nearly all that the
// server can do. Times are Time.Mono. The zero value is no bound.
type Pace struct {
	seed     Seed
	rate     float64       // requests a second; 0: no bound
	starting bool          // after an outage, without a refusal so far
	sent     time.Duration // when the latest request was sent, or refused
	spaced   int64         // counts them
	pressed  time.Duration // when the latest refusal came
	lapses   bool          // it did come

	// Answers in the second that began at second, and in the one before.
	second          time.Duration
	answers, before int
}

// NewPace returns one without a bound; seed tells the nodes apart.
func NewPace(seed Seed) Pace { return Pace{seed: seed} }

// Pressed reports whether the server has refused requests of late.
func (p *Pace) Pressed() bool { return p.lapses }

// Ready reports whether a request may be sent at now, and if not, when.
func (p *Pace) Ready(now time.Duration) (ok bool, at time.Duration) {
	p.lapse(now)
	if p.rate == 0 {
		return true, now
	}
	gap := (0.9 + p.seed.fraction(p.spaced)/5) / p.rate
	at = p.sent + time.Duration(gap*float64(time.Second))
	return now >= at, at
}

// Sent notes a request that is sent at now.
func (p *Pace) Sent(now time.Duration) {
	p.sent = now
	p.spaced++
}

// Answered notes an answer that is none of an outage, nor of a pressed server.
func (p *Pace) Answered(now time.Duration) {
	if age := now - p.second; age >= time.Second {
		p.before = 0
		if age < 2*time.Second {
			p.before = p.answers
		}
		p.second, p.answers = now, 0
	}
	p.answers++
	p.lapse(now)
	switch {
	case p.rate == 0:
	case !p.starting:
		p.rate++
	case p.rate < fullRate:
		p.rate *= 2
	default:
		p.rate, p.starting = 0, false
	}
}

// Refused notes that a request which was sent at sent has been refused, though the server answers others, and reports whether
// that counts: of those that were under way together only the first one does.
func (p *Pace) Refused(sent, now time.Duration) (counts bool) {
	if p.lapses && sent <= p.pressed {
		return false
	}
	if p.rate == 0 {
		p.rate = float64(max(p.answers, p.before))
	}
	p.rate, p.starting = max(p.rate/2, leastRate), false
	p.pressed, p.lapses = now, true
	p.Sent(now)
	return true
}

// AtLeast raises a rate that refusals have brought down to what the node cannot do without, in requests a second: others may
// press the server however slowly this node asks.
func (p *Pace) AtLeast(rate float64) {
	if p.rate > 0 {
		p.rate = max(p.rate, rate)
	}
}

// Start begins slowly, at the end of an outage; the request that is sent at now is the first.
func (p *Pace) Start(now time.Duration) {
	p.Lift()
	p.rate, p.starting = startRate, true
	p.Sent(now)
}

// Lift takes the bound away: the server is out, and is probed.
func (p *Pace) Lift() { p.rate, p.starting, p.lapses = 0, false, false }

func (p *Pace) lapse(now time.Duration) {
	if p.lapses && now-p.pressed >= calmAfter {
		p.Lift()
	}
}
