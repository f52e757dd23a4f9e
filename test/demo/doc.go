// Command demo plays the daemon before one's eyes: it starts the fake API
// server with a handful of pods, runs token-projector on a temporary root, and
// reads every token file the way a pod would, every 20 ms, from the moment it
// first appeared until its pod is gone.
//
//   - A read that fails while the pod exists, a token that is expired, torn or
//     another pod's, and a token that does not come within 10 s of its pod are
//     errors: printed when they begin, remembered, and decisive for the exit code.
//   - With --for it ends by itself and also demands that every token rotated in
//     proportion to the time it was watched, at least once per full lifetime,
//     and at least twice if its pod lived through a run of three lifetimes or more;
//     that the pods everybody expects were seen; and that both programs lived
//     until then and exit 0 on SIGTERM.
//   - Without --for it runs until Ctrl-C and judges what there was.
//   - Exit code 0: all well; 1: not; 2: bad flags. Nothing is left behind: no
//     file, and no process even if demo itself is killed.
//
// It never prints a token.
package main
