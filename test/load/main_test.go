package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"node --help", 0, ""}, // what the others are measured by
		{"", 2, "which one"},
		{"nothing", 2, "there are node, burst and pressed"},
		{"node more", 2, "unexpected argument"},
		{"node --pods 0", 2, "--pods 0"},
		{"node --pods 110,20001", 2, "--pods 20001"},
		{"node --for 9s", 2, "--for 9s"},
		{"node --rounds 3", 2, "unknown flag"},
		{"burst --rounds 0", 2, "--rounds 0"},
		{"burst --kubeconfig f", 2, "belong together"},
		{"pressed --rate 0", 2, "--rate 0"},
		{"pressed --fresh -1", 2, "--fresh -1"},
		{"node --fake-apiserver /nonexistent", 1, "start nonexistent"},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(c.args), io.Discard, &stderr); code != c.code {
			t.Errorf("%q: exit code %d, want %d", c.args, code, c.code)
		}
		if c.says != "" && !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%q: said %q, want %q", c.args, stderr.String(), c.says)
		}
	}
}

// TestProgramThatEnds: one that ends instead of serving is reported, with what it said, and nothing is left behind.
func TestProgramThatEnds(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "server")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho no port for me\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"node", "--fake-apiserver", script}, io.Discard, &stderr)
	if said := stderr.String(); code != 1 || !strings.Contains(said, "ended by itself: exit status 3") || !strings.Contains(said, "no port for me") {
		t.Errorf("exit code %d, said %q", code, said)
	}
}
