// Package rotation decides when. It is pure: no goroutine, no I/O, no clock of
// its own; every function takes the time it is to decide for.
//
//   - Time is a pair of local clocks, ServerClock turns it into the API
//     server's time, and server time alone says what is due and what is expired.
//   - Lifetime holds the rule: refresh no later than 80 % of the lifetime or
//     24 hours after issue, earlier by a spread that is a hash and never redrawn.
//   - Queue holds keys until they are due, and then hands them out soonest
//     deadline first.
//   - Outage tells failures of the server, which all tokens of the node share,
//     from failures of one token; Backoff spaces the latter. Pace spaces the requests to a
//     server that has just been out, or that refuses what is too much for it.
//
// Nothing here is safe for concurrent use; one goroutine owns each value.
package rotation
