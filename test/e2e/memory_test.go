//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// memory reads what a process may write to: heap, stacks, data.
func memory(t *testing.T, pid int) (regions [][]byte) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	check(t, err)
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	check(t, err)
	defer mem.Close()
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		var from, to int64
		var rights string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil || !strings.HasPrefix(rights, "rw") {
			continue
		}
		region := make([]byte, to-from)
		n, err := io.ReadFull(io.NewSectionReader(mem, from, to-from), region)
		if err != nil && n == 0 {
			continue // reserved and never touched
		}
		regions = append(regions, region[:n])
	}
	return regions
}

// held counts the texts that are whole in a process's memory.
func held(regions [][]byte, texts ...[]byte) (held int) {
	for _, text := range texts {
		if slices.ContainsFunc(regions, func(region []byte) bool { return bytes.Contains(region, text) }) {
			held++
		}
	}
	return held
}

// TestTokensLeaveMemory: published tokens are held by nothing but the buffers of connections. What Go's collector frees it
// does not wipe: a token lasts until its place is taken by something else. Measured of 110: 92 just after the publish, 50
// after two idle minutes, 6 after a hundred scrapes, and never none.
func TestTokensLeaveMemory(t *testing.T) {
	t.Parallel()
	const pods, inBuffers = 110, 32 // 16 connections
	n := newNode(t, t.TempDir()+"/root")
	n.start()
	var paths []string
	for i := range pods {
		paths = append(paths, n.pod(fmt.Sprint("web-", i)))
	}
	n.measure("the tokens", n.allPublished(paths))
	tokens, regions := n.api.TokenBytes(), memory(t, n.PID())
	first := held(regions, tokens...)
	if first == 0 || held(regions, []byte(n.root)) == 0 {
		t.Fatalf("%d of %d tokens are found just after they were there: others would not be either", first, len(tokens))
	}
	last, scrapes := first, 0
	for ; last > inBuffers && scrapes < 5000; scrapes += 100 {
		for range 100 { // it needs memory for each
			n.shows("")()
		}
		last = held(memory(t, n.PID()), tokens...)
	}
	if last > inBuffers {
		t.Errorf("%d of %d tokens are still in memory after %d scrapes", last, len(tokens), scrapes)
	}
	t.Logf("%d of %d tokens in memory at first, %d after %d scrapes", first, len(tokens), last, scrapes)
	n.Terminate()
}
