package rotation

import (
	"hash/fnv"
	"math/bits"
	"time"
)

// MaxAge is the age at which any token is refreshed, however long it lives.
// The kubelet's rule (pkg/kubelet/token/token_manager.go).
const MaxAge = 24 * time.Hour

// Spread windows as fractions of the limit (80 % of the lifetime, or MaxAge).
// A first refresh lies anywhere in [1/32, 1): pods which came together come back
// at the rate of any later hour, since the share that is left out, before 1/32, is
// what that rate exceeds the mean by until then. Later ones lie in [31/32, 1),
// which costs 1.6 requests in a hundred; the wide window costs half a lifetime
// once. With a thousand nodes the fleet's peak is what random arrival makes of a flat
// rate; a first window from 1/8 on, as a floor of a tenth of the lifetime would have it,
// leaves 14 % and holes that return each 48 minutes. See docs/performance.md, "A fleet".
const (
	firstWindow = 31.0 / 32
	laterWindow = 1.0 / 32
)

// Seed names a token for the hashes that spread refreshes and retries. It must
// be stable across restarts.
type Seed uint64

// NewSeed hashes the parts of a token's identity.
func NewSeed(parts ...string) Seed {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return Seed(h.Sum64())
}

// Phase is a time in [0, period) that depends on the seed alone.
func (s Seed) Phase(period time.Duration) time.Duration {
	return time.Duration(s.fraction(0) * float64(period))
}

// fraction is a number in [0, 1) that depends on the seed and on n alone.
func (s Seed) fraction(n int64) float64 {
	hi, lo := bits.Mul64(uint64(s)^0x9e3779b97f4a7c15, uint64(n)^0xd1b54a32d192ed03)
	x := hi ^ lo
	x ^= x >> 32
	x *= 0xe9846af9b1a615d
	x ^= x >> 28
	return float64(x>>11) / (1 << 53)
}

// Lifetime is the life of one token in server time. The zero value is that of
// no token: expired since ever.
type Lifetime struct {
	Issued  time.Time // iat
	Expires time.Time // the returned expirationTimestamp, or warnafter; never an extended exp
}

// TTL is the length of the life.
func (l Lifetime) TTL() time.Duration { return l.Expires.Sub(l.Issued) }

// age at which a refresh is late.
func (l Lifetime) limit() time.Duration { return min(l.TTL()/5*4, MaxAge) }

// Limit is when the kubelet's rule wants the token refreshed at the latest:
// min(80 % of the lifetime, 24 h) after issue.
func (l Lifetime) Limit() time.Time { return l.Issued.Add(l.limit()) }

// Expired reports whether the token is no longer good at now. A token is good
// up to, not at, its expiry.
func (l Lifetime) Expired(now time.Time) bool { return !now.Before(l.Expires) }

// Due is when the token is to be refreshed: no later than Limit, earlier by a
// spread that depends on the seed and the time of issue alone. wide is for a
// token that may have come together with many others: the first of its kind, or one that
// came late.
func (l Lifetime) Due(s Seed, wide bool) time.Time {
	window := laterWindow
	if wide {
		window = firstWindow
	}
	u := s.fraction(l.Issued.UnixNano())
	early := time.Duration((1 - u) * window * float64(l.limit()))
	return l.Limit().Add(-early)
}

// First reports whether the token is the first of its kind, for somebody who
// was there from born on: it was issued before a predecessor, asked for at once, could have been
// due. One that came later is taken for its own successor; a zero born is unknown, and nobody's first.
func (l Lifetime) First(born time.Time) bool {
	return l.Issued.Before(born.Add(time.Duration((1 - firstWindow) * float64(l.limit()))))
}

// DueAdopted is Due for a token found on disk, so that a restart moves
// nothing. But a token within its limit is never due at once, lest a restart send a request:
// if what was due in the meantime was due by the wide window it is due by the
// narrow one, and else at its limit.
func (l Lifetime) DueAdopted(s Seed, wide bool, now time.Time) time.Time {
	if due := l.Due(s, wide); due.After(now) {
		return due
	}
	if due := l.Due(s, false); due.After(now) {
		return due
	}
	return l.Limit()
}

// Floor is the earliest time at which the token may be minted again as due: a
// tenth of its lifetime (or of MaxAge) after it was asked for. It bounds the
// requests that a server can cause whose answers are already old. With the wide window, which no
// such answer gets twice, it is a fortieth, where that window begins.
func (l Lifetime) Floor(asked time.Time, wide bool) time.Time {
	least := min(l.TTL(), MaxAge) / 10
	if wide {
		least /= 4
	}
	return asked.Add(least)
}
