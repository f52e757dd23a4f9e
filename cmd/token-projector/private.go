package main

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// notPrivate is said where the kernel does not let keepPrivate do it.
const notPrivate = "this process's memory may come into a core file, or be read by other processes of its user"

// keepPrivateOrSay is keepPrivate for commands that have no log.
func keepPrivateOrSay(stderr io.Writer) {
	if err := keepPrivate(); err != nil {
		fmt.Fprintf(stderr, "token-projector: %s: %s\n", notPrivate, err)
	}
}

// keepPrivate keeps the memory of this process, which holds tokens and credentials, from other processes and from disks.
// It is said to be not dumpable: then no signal makes the kernel write a core file or, which no limit prevents, hand one
// to a program that /proc/sys/kernel/core_pattern names, whatever GOTRACEBACK is; and nobody may trace the process, or
// read its memory, environment or open files in /proc, not even processes of the same user, but who has the capability
// SYS_PTRACE (PERFMON will do for the environment). The process itself still may. The limit is for what it executes: the
// credential plugin of a kubeconfig.
func keepPrivate() error {
	var errs []error
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("PR_SET_DUMPABLE: %w", err))
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		errs = append(errs, fmt.Errorf("RLIMIT_CORE: %w", err))
	}
	return errors.Join(errs...)
}
