// Package crash holds no code. Its tests, behind the build tag crash, kill real processes: a small publisher at each of its
// changing file-system calls, and the whole daemon at random moments. They need root and strace: `make crash`.
package crash
