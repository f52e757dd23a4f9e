// Command fleet plays the TokenRequests of a whole fleet of nodes, with the daemon's own package rotation and beside it by
// the kubelet's rule, in virtual time.
//
//   - One token is one pod's: it is created, is asked for, lives, and is refreshed until its pod ends.
//   - Events are played in the order of their times, to the millisecond; nothing is drawn from the time of day: the same flags
//     give the same figures.
//   - The API server answers one request after another, so many in a second, and refuses with 429 when too many wait. It does
//     the work of a request also if its client has given up meanwhile.
//   - What a node does with an answer is rotation's to decide: when a token is due, how soon to ask again, when a server is
//     out or pressed, how fast to ask it. How many requests of a node are in flight, and how long it waits for one, is the daemon's.
//
// What it leaves out: the pod list, the disk, and failures of single tokens.
package main
