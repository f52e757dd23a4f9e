package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestExpiryIsProven: the planted tokens are told apart, and who cannot plant them says so.
func TestExpiryIsProven(t *testing.T) {
	t.Parallel()
	if err := proveExpiryIsSeen(t.TempDir()); err != nil {
		t.Error(err)
	}
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if proveExpiryIsSeen(blocked) == nil {
		t.Error("proven where nothing can be planted")
	}
}

// TestPressedJudge: of each token that was due, the first refresh after the server's return counts, and no other.
func TestPressedJudge(t *testing.T) {
	t.Parallel()
	back := time.Now()
	late, soon, other := &file{}, &file{}, &file{}
	r := &reader{done: []refresh{
		{of: soon, at: back.Add(-time.Minute), late: -time.Minute, life: 600 * time.Second}, // before the outage
		{of: other, at: back.Add(time.Second), late: -300 * time.Second, life: 600 * time.Second},
		{of: late, at: back.Add(70 * time.Second), late: 115 * time.Second, life: 600 * time.Second},
		{of: soon, at: back.Add(2 * time.Second), late: 40 * time.Second, life: 600 * time.Second},
		{of: soon, at: back.Add(500 * time.Second), late: -time.Second, life: 600 * time.Second}, // the next one
	}}
	p := &pressed{left: time.Hour}
	p.judge(r, map[*file]bool{late: true, soon: true}, back)
	if want := []time.Duration{2 * time.Second, 70 * time.Second}; !slices.Equal(p.renewed, want) {
		t.Errorf("renewed after %v, want %v", p.renewed, want)
	}
	if want := []time.Duration{40 * time.Second, 115 * time.Second}; !slices.Equal(p.late, want) {
		t.Errorf("late by %v, want %v", p.late, want)
	}
	fresh := &file{first: back.Add(30 * time.Second)}
	r.files = []*file{late, soon, other, fresh}
	p.serve(r, back)
	if p.busy != 70*time.Second || p.served != 4 { // of the five refreshes, one came before and one after; and the fresh one's
		t.Errorf("busy for %v with %d tokens, want 70s and 4", p.busy, p.served)
	}
	if p.left != 5*time.Second {
		t.Errorf("%v left at the least, want 5s", p.left)
	}
}
