//go:build figures

package kubelet

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	rounds = flag.Int("rounds", 5, "how often each publish is measured; the table has the medians")
	// In the process that is traced.
	traced   = flag.String("traced", "", "KIND/BY, of which the test process makes publishes between marks")
	tracedIn = flag.String("traced-in", "", "where")
)

// TestPublishTable prints the table of docs/performance.md, from rounds that alternate, and counts file system calls. Ours
// needs at most half of the kubelet's calls and allocations; time is printed alone.
func TestPublishTable(t *testing.T) {
	results := map[string][]testing.BenchmarkResult{}
	for range *rounds {
		for _, kind := range kinds {
			for _, by := range bys {
				name := kind + "/" + by
				results[name] = append(results[name], testing.Benchmark(func(b *testing.B) { benchSeries(b, kind, by) }))
			}
		}
	}
	table := "| publish | by | µs | of the kubelet's | allocs | B | file system calls |\n|---|---|---|---|---|---|---|\n"
	for _, kind := range kinds {
		theirs := figuresOf(t, results, kind, "kubelet")
		for _, by := range bys {
			f := figuresOf(t, results, kind, by)
			table += fmt.Sprintf("| %s | %s | %.1f | %.2f | %d | %d | %d |\n", kind, by, f.micros, f.micros/theirs.micros, f.allocs, f.bytes, f.calls)
			if by == "ours" && (2*f.calls > theirs.calls || 2*f.allocs > theirs.allocs) {
				t.Errorf("%s: %d calls and %d allocations, the kubelet's %d and %d", kind, f.calls, f.allocs, theirs.calls, theirs.allocs)
			}
		}
	}
	fmt.Println(table)
}

type figures struct {
	micros        float64
	allocs, bytes int64
	calls         int
}

func figuresOf(t *testing.T, results map[string][]testing.BenchmarkResult, kind, by string) figures {
	all := results[kind+"/"+by]
	slices.SortFunc(all, func(a, b testing.BenchmarkResult) int { return int(a.NsPerOp() - b.NsPerOp()) })
	middle := all[len(all)/2]
	return figures{float64(middle.NsPerOp()) / 1000, middle.AllocsPerOp(), middle.AllocedBytesPerOp(), countCalls(t, kind, by)}
}

// mark is a path that nobody opens but to mark a trace.
const mark = "/the-mark-of-a-publish"

// countCalls has strace count the file system calls of publishes of that kind; they are all alike, after the first batch.
func countCalls(t *testing.T, kind, by string) int {
	t.Helper()
	out := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", "-f", "-qq", "-e", "trace=file,desc", "-o", out, os.Args[0], "-test.run", "^TestTraced$",
		"-traced", kind+"/"+by, "-traced-in", memoryDir(t))
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("strace: %v\n%s", err, said)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	counts := callsBetweenMarks(f)
	slices.Sort(counts)
	if len(counts) != 2*batch {
		t.Fatalf("%d publishes are marked, want %d", len(counts), 2*batch)
	}
	return counts[batch]
}

// aCall is the thread and the call of a line of a trace. The second half of a call that another thread interrupted in
// the trace has none, and the runtime's epoll, which the time of a signal decides, is no file system call.
var aCall = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\((.*)`)

// callsBetweenMarks counts the calls of each publish: between two marks of one thread.
func callsBetweenMarks(f *os.File) (counts []int) {
	at := map[string]int{} // by thread
	for lines := bufio.NewScanner(f); lines.Scan(); {
		m := aCall.FindStringSubmatch(lines.Text())
		if m == nil || strings.HasPrefix(m[2], "epoll") {
			continue
		}
		n, open := at[m[1]]
		switch marks := strings.Contains(m[3], mark); {
		case marks && open:
			counts = append(counts, n)
			delete(at, m[1])
		case marks:
			at[m[1]] = 0
		case open:
			at[m[1]]++
		}
	}
	return counts
}

// TestTraced is what strace traces. By itself it makes sure that every publish can be made.
func TestTraced(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, kind := range kinds {
		for _, by := range bys {
			dir := *tracedIn
			if *traced == "" {
				dir = memoryDir(t)
			} else if *traced != kind+"/"+by {
				continue
			}
			if err := markedPublishes(kind, by, dir); err != nil {
				t.Errorf("%s by %s: %v", kind, by, err)
			}
		}
	}
}

func markedPublishes(kind, by, dir string) error {
	s, err := newSeries(kind, by, dir)
	if err != nil {
		return err
	}
	for range 2 {
		if err := s.prepare(); err != nil {
			return err
		}
		for i := range batch {
			_ = unix.Access(mark, 0)
			err := s.publish(i)
			_ = unix.Access(mark, 0)
			if err != nil {
				return err
			}
		}
	}
	return nil
}
