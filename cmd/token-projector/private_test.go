package main

import (
	"context"
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKeepsPrivate: every command that reads tokens keeps its memory, here the tests', from other processes and from core files.
func TestKeepsPrivate(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	root := t.TempDir()
	if err := newSigner(t).publish(root, "u1", "v", "token"); err != nil {
		t.Fatal(err)
	}
	dumpable := func() int {
		t.Helper()
		n, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, args := range [][]string{
		{"inspect", "--root-dir", root},
		{"wait", "--file", root + "/pods/u1/volumes/kubernetes.io~projected/v/token"},
		{"observe", "--root-dir", root, "--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0"},
	} {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil || dumpable() != 1 {
			t.Fatalf("the tests' process is not dumpable: %v", err)
		}
		ctx := t.Context()
		if args[0] == "observe" {
			ctx = ended // or it would go on
		}
		if status := command(ctx, args, io.Discard, io.Discard); status != 0 || dumpable() != 0 {
			t.Errorf("%s: exit status %d, dumpable %d", args[0], status, dumpable())
		}
	}
}
