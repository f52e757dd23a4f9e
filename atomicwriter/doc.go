// Package atomicwriter publishes the files of one volume directory
// atomically, in the on-disk layout of the kubelet's projected volumes:
//
//	token        -> ..data/token
//	..data       -> ..2026_11_22_10_15_04.123456789
//	..2026_11_22_10_15_04.123456789/token
//
// Contract:
//
//   - A reader that opens a file by name gets the whole old or the whole new
//     file, whatever happens meanwhile: a publish, a failed publish, a crash.
//     New files of one version appear together, with the rename of ..data.
//   - A reader that opens ..data reads one version for as long as the caller
//     waits before it passes Result.Stale to [Dir.Sweep].
//   - After a crash at any point, or a failed system call at any point, the next
//     [Dir.Publish] succeeds, and the Sweep of its Result.Stale leaves nothing behind.
//   - A published file is never written, chmodded or chowned. A wrong byte, mode
//     or owner, a surplus entry or a second hard link is repaired by a new version.
//   - Nothing found in a directory can make the package act outside of it, or
//     wait: every path is resolved by openat2 below an open descriptor, no symbolic
//     link is followed, no mount is crossed, no FIFO or device is opened knowingly,
//     and what is read is bounded ([MaxFile], [MaxFiles], [MaxVersion], [MaxDepth]).
//   - No error text contains a byte of a file.
//
// What the kubelet's writer does otherwise: it links after the swap, compares
// content only, removes the old version at once, and fails for ever once a
// crash has left ..data_tmp behind.
//
// The package needs Linux 5.6 (openat2) and /proc. A [Dir] belongs to one goroutine
// at a time, and a directory to one publisher; readers need no coordination.
package atomicwriter
