package rotation

import "time"

// Time is one instant as both local clocks see it. The two disagree after a
// step of the wall clock (Wall jumps, Mono does not) and after a suspended
// machine (Mono stood still, Wall did not).
type Time struct {
	Mono time.Duration // since an arbitrary start; never steps, stands still while suspended
	Wall time.Time     // the local wall clock, without a monotonic reading
}

// Since is how long ago earlier was, by whichever clock says longer; never negative.
func (t Time) Since(earlier Time) time.Duration {
	return max(t.Mono-earlier.Mono, t.Wall.Sub(earlier.Wall), 0)
}

// Clock reads both local clocks. It is injected once, at the rim; everything
// else receives a Time.
type Clock func() Time

// SystemClock returns the Clock of this machine. Its Mono counts from the call.
func SystemClock() Clock {
	start := time.Now()
	return func() Time {
		now := time.Now()
		return Time{Mono: now.Sub(start), Wall: now.Round(0)}
	}
}

// Disagreement of the two local clocks, since the last answer, beyond which
// one of them must have stepped or stood still. Ordinary slewing over a quiet
// hour stays far below.
const doubt = 2 * time.Second

// ServerClock estimates the API server's time from the latest answer and the
// local time that has passed since. The zero value has not heard the server
// and falls back on the local wall clock.
type ServerClock struct {
	heard  bool
	server time.Time // the server's time at local
	local  Time
}

// Heard reports whether any answer has set the clock.
func (c ServerClock) Heard() bool { return c.heard }

// Now is the server's time at local: the last heard time plus the larger of
// the monotonic and the wall time since. The larger, because a suspended
// machine loses monotonic time and a clock set back loses wall time, and a
// token refreshed too early costs one request while one too late costs an outage.
func (c ServerClock) Now(local Time) time.Time {
	if !c.heard {
		return local.Wall
	}
	return c.server.Add(local.Since(c.local))
}

// Doubtful reports whether the local clocks have drifted apart since the last
// answer that told the time: somebody stepped the wall clock, or the machine was suspended. Now
// may then be wrong by the size of the step, so ask the server once before
// acting on many tokens.
func (c ServerClock) Doubtful(local Time) bool {
	return c.heard && c.local.apart(local)
}

// apart reports whether the clocks disagree about how long it is from t to u.
func (t Time) apart(u Time) bool {
	return (u.Mono - t.Mono - u.Wall.Sub(t.Wall)).Abs() > doubt
}

// Skew is local wall time minus server time, and whether it is known.
func (c ServerClock) Skew(local Time) (time.Duration, bool) {
	return local.Wall.Sub(c.Now(local)), c.heard
}

// Hear takes the server's time from an answer to a request that was sent at
// sent and answered at received. Servers state whole seconds (Date header,
// creationTimestamp), so the true time at received lies between server and
// server + 1 s + the round trip; an estimate inside that interval is kept and
// any other is moved to its nearer end. While the local clocks came apart under
// way nobody knows how old the answer is: a machine that slept finds answers from
// before in its sockets. Such a one is ignored, unless it is the first. Hear returns by how much Now moved:
// beyond noise, times that were computed before must be shifted by it.
func (c *ServerClock) Hear(server time.Time, sent, received Time) time.Duration {
	if c.heard && sent.apart(received) {
		return 0
	}
	before := c.Now(received)
	latest := server.Add(time.Second + received.Since(sent))
	after := before
	switch {
	case !c.heard, after.Before(server):
		after = server
	case after.After(latest):
		after = latest
	}
	*c = ServerClock{heard: true, server: after, local: received}
	return after.Sub(before)
}
