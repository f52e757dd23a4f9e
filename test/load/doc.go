// Command load measures the real daemon, as a process, on a node of many pods: with the fake API server in another process,
// or with a real one. `make load` plays all of it and prints tables for docs/performance.md.
//
//	load node    [--pods 110,1000,10000] [--for 90s] [--out DIR]
//	load burst   [--pods 110,250] [--rounds 5] [--kubeconfig FILE --node-kubeconfig FILE]
//	load pressed [--pods 1000] [--fresh 250] [--rate 50] [--for 5m]
//
// What each does:
//
//   - node: all pods are there when the daemon starts, until their last token is on disk; at rest, where nothing is due; after
//     a restart; and then, with tokens so short that all are refreshed again and again, while pods come and go.
//   - burst: pods that are created at once on a daemon that runs, from the POST to a token that a reader can use; and the floor,
//     which is the bare time of as many TokenRequests, in the same run.
//   - pressed: a server that grants so many TokenRequests per second and refuses the others, as API Priority and Fairness does.
//     All pods come at once; then the server is out until tokens fall due, and comes back when new pods come, too.
//
// Every pod has two tokens: the injected one of 3607 s, and one of 600 s for the audience "vault"; if it is pressed, the latter
// alone. A reader looks at each file
// by itself: every 20 ms if there are up to 500, else less often, with the time of the swap as the file system has it.
//
// Exit code 0: figures, whatever they are; 1: a token was missing, torn, another pod's or expired, one was requested or
// written needlessly, or a program died; 2: bad flags. It never prints a token.
package main
