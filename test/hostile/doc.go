// Package hostile holds no code: its tests let pods loose on the daemon, a process of its own.
//
//   - What a pod plants in its volume, or swaps while the daemon works on it, changes nothing outside: a tree
//     beside the root is compared before and after, with contents, modes, owners, attributes, times and inode numbers.
//   - Each attack is first shown to succeed against a naive writer.
//   - Meanwhile other pods' tokens go on being renewed, and afterwards the attacked volume is whole again.
//   - A secret in that tree is searched for in all that was published and said.
//
// The attacks run as the daemon's own user, who may do more than a pod. Those that need root are in test/e2e.
// Package atomicwriter has the same for a single publish (TestHostile, TestSwappedAtEveryStep, FuzzPublish), projector for
// what is found at a start (FuzzAdoption) and for directories that others could write (TestGuard).
package hostile
