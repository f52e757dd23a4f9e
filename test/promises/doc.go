// Package promises holds no code. Its test, behind the build tag promises, breaks each promise of the daemon on purpose, a
// line at a time, and fails unless a test notices: `make promises`. Without the tag it only holds its table to the source
// and to docs/reliability.md.
package promises
