// Package integration runs the real daemon, as a process of its own, against
// the fake API server, in real time and with short-lived tokens. Every test
// searches everything the daemon printed, at debug level, for every token that
// was ever issued.
package integration
