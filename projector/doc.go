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
//   - Tokens never appear in errors, logs, metrics or Status.
//
// # Embedding
//
// For a program that runs pods itself, such as a virtual-kubelet provider:
//
//   - One Root and one Projector per node name. For several node names in one
//     process, several of both, each with a directory of its own. OpenRoot takes a
//     lock: a successor waits until its predecessor has ended.
//   - New, then Run in a goroutine until the end. Run returns ErrRootReplaced when
//     the directory was deleted or replaced: open it again and begin anew.
//   - With Config.Client the Projector watches the node's pods itself. Without,
//     feed it: Replace with the complete list once, then Apply and Forget, all with
//     what Desired makes of the pods; Touch for every object that a volume names:
//     configMaps, secrets, trust bundles, the node.
//   - Tell it the server's time, which decides when a token is due: HearServer
//     around the transports of Config.Client and of Config.Mint's client, and Hear.
//   - Config.AccountUID, such as NewAccountUID, finds service accounts that were
//     deleted and made again. A Mint of your own tells Minted.AccountUID.
//   - Before a container starts: WaitReady. Then mount Root.Path of each volume, the
//     whole directory, read-only: files are replaced by a rename inside it, which a
//     mount of a single file would not see.
//   - Nothing needs to be done at a rotation. Who copies the files elsewhere, into a
//     virtual machine say, is told by Config.Published.
//   - With Config.AwaitStopped, Stopped when nothing of the pod runs any more: only
//     then is its directory removed. Without, it is removed as soon as the pod is gone.
//   - After a restart tokens on disk serve on, and nothing is asked for. WaitSynced,
//     then Status: the pods that are Gone have ended meanwhile. End what still runs
//     of them, and say Stopped.
package projector
