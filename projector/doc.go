// Package projector keeps the projected token volumes of one node's pods fresh
// on disk. It decides WHAT should be there and runs the loop; package rotation
// decides when, package atomicwriter publishes.
//
//   - Desired is pure: a pod in, the volumes it wants out.
//   - One goroutine, started by Run, owns all state: one entry per volume, and
//     the queues. Everybody else sends it events or carries out its jobs.
//   - A volume is the unit of publication, a token source the unit of minting.
//     At most one job is in flight per volume.
//   - Owner and transitions do no I/O. Requests run on at most
//     Config.MaxInFlight goroutines, disk jobs on a few others.
//   - A token on disk is its own state file: a restart reads it back and asks
//     for nothing. Token bytes stay in memory only between answer and publish.
//   - A failed refresh leaves what is on disk alone. Nothing is removed before
//     the first complete pod list, nor when Run returns.
//   - Tokens never appear in errors, logs or metrics.
package projector
