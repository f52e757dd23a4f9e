package rotation

import "time"

// Probing of a server that is out: once per probeEvery plus up to probeSpread.
const (
	probeEvery  = time.Second
	probeSpread = time.Second
)

// maxRetryAfter bounds what a server's Retry-After may ask for; a token must
// not expire because of one odd header.
const maxRetryAfter = time.Minute

// Outage is what the node knows about failures that belong to the server: no
// answer, 401, 429, 5xx. While it is open the node sends one probe per 1–2 s,
// and the first success ends it for all. Times are Time.Mono, so that no step
// of the wall clock moves a probe. The zero value is a server in order.
type Outage struct {
	seed   Seed
	open   bool
	opened time.Duration // when the request was sent whose failure opened it
	probe  time.Duration // no request before this while open
	probes int64
	okSent time.Duration // when the latest successful request was sent
	oked   bool
}

// NewOutage returns a server in order; seed tells the probes of nodes apart.
func NewOutage(seed Seed) Outage { return Outage{seed: seed} }

// Open reports whether the server is believed to be out.
func (o *Outage) Open() bool { return o.open }

// lonely is how often in a row a token, or a namespace, is refused with 429, while the server answers others, before that says
// nothing of the server any more.
const lonely = 3

// Pressed reports whether a refusal with 429, of a token that has failed so often in a row, says that the server has too much
// to do, and not that it is out: it has answered others of late. Pace then spaces the requests.
func (o *Outage) Pressed(now time.Duration, failures int) bool {
	return failures < lonely && !o.open && o.oked && now-o.okSent < calmAfter
}

// Singled reports whether refusals with 429, so many in a row for one namespace, say nothing of the server: it has answered
// others, to requests sent after that began.
func (o *Outage) Singled(began, now time.Duration, refusals int) bool {
	return refusals >= lonely && o.Pressed(now, 0) && o.okSent > began
}

// Probe reports whether a request may be sent at now, and if not, when.
func (o *Outage) Probe(now time.Duration) (ok bool, at time.Duration) {
	return !o.open || now >= o.probe, o.probe
}

// Probing notes that a probe is being sent at now.
func (o *Outage) Probing(now time.Duration) { o.postpone(now, 0) }

// Failed notes a failure of the server's kind, of a request sent at sent, and
// reports whether it belongs to the server. It does not when the token has
// already failed while others succeeded (suspect), or when a request sent
// later has succeeded: the server was answering then.
func (o *Outage) Failed(sent, now, retryAfter time.Duration, suspect bool) bool {
	if suspect || o.oked && o.okSent > sent {
		return false
	}
	if !o.open {
		o.open, o.opened = true, sent
		o.postpone(now, 0)
	}
	if retryAfter > 0 {
		o.postpone(now, min(retryAfter, maxRetryAfter))
	}
	return true
}

// Succeeded notes a success of a request sent at sent and reports whether it
// ends an outage. One that was sent before the failure which opened the outage
// proves nothing about now.
func (o *Outage) Succeeded(sent time.Duration) (ended bool) {
	if !o.oked || sent > o.okSent {
		o.okSent, o.oked = sent, true
	}
	if !o.open || sent < o.opened {
		return false
	}
	o.open, o.probe = false, 0
	return true
}

func (o *Outage) postpone(now, atLeast time.Duration) {
	o.probes++
	spread := time.Duration(o.seed.fraction(o.probes) * float64(probeSpread))
	o.probe = max(o.probe, now+max(probeEvery, atLeast)+spread)
}

// Retries of one token that fails alone: from firstRetry, doubling, to
// lastRetry, never giving up. The first ones are fast, because a 403 or 404
// at a pod's start is usually a cache that lags by some ten milliseconds, and a container
// waits for the token; the kubelet's first is 500 ms. The cap is the kubelet's
// (pkg/util/goroutinemap/exponentialbackoff).
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Minute
)

// Backoff is the pause before the next attempt after that many failures in a
// row, shortened by a jitter of up to a quarter that the seed decides.
// A token that is still good for remaining is tried again within a quarter of
// that, but never within less than firstRetry.
func Backoff(s Seed, failures int, remaining time.Duration) time.Duration {
	d := lastRetry
	if shift := max(failures-1, 0); shift < 16 {
		d = min(d, firstRetry<<shift)
	}
	if remaining > 0 {
		d = max(min(d, remaining/4), firstRetry)
	}
	return d - time.Duration(s.fraction(int64(failures))*float64(d)/4)
}
