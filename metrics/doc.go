// Package metrics is every collector of token-projector in one place.
//
// The contract:
//
//   - One [Metrics] per process or per embedded projector. [New] touches no
//     global registry and starts nothing; two Metrics never meet.
//   - Every series exists from the start: counters and last_* timestamps at 0,
//     for all label values known in advance. Only what is truly unknown is
//     absent: the earliest expiration while there is no token, the clock skew
//     before the server has spoken.
//   - State is asked for at scrape ([Metrics.Snapshot]), never sampled by
//     events: a loop that hangs makes its gauges vanish instead of freezing
//     them at their last good value.
//   - Durations are seconds, times are Unix seconds, both as floats.
//   - Labels are bounded: no pod, namespace, host, URL or error text. Nothing
//     here ever sees a token.
//   - A nil *Metrics is usable: every method does nothing. So a library works
//     without metrics and without asking.
//   - All methods may be called by many goroutines at once.
package metrics
