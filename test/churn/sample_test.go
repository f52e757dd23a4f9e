//go:build churn

package churn

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
)

// sample counts what the daemon has now: once more if connections come or go meanwhile, for what is subtracted for them
// would be wrong.
func (n *node) sample() sample {
	n.t.Helper()
	s := n.descriptors()
	families := n.daemon.Scrape()
	if n.descriptors()[sockets] != s[sockets] {
		return n.sample()
	}
	s[goroutines] = sum(families["go_goroutines"]) - 2*s[sockets] // one reads a connection, one writes it
	s[heapBytes] = sum(families["go_memstats_heap_alloc_bytes"])
	s[heapObjects] = sum(families["go_memstats_heap_objects"])
	s[resident] = sum(families["process_resident_memory_bytes"])
	s[series] = 0
	for _, f := range families {
		s[series] += float64(len(f.Metric))
	}
	s[surplus] = float64(len(n.directories()) - n.projected())
	return s
}

// requests is how many TokenRequests the daemon has sent.
func (n *node) requests() float64 {
	n.t.Helper()
	return sum(n.daemon.Scrape()["token_projector_token_requests_total"])
}

// sum is that of all series, and no number for a family that is not there.
func sum(f *dto.MetricFamily) (total float64) {
	if f == nil {
		return math.NaN()
	}
	for _, m := range f.Metric {
		total += m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	return total
}

// descriptors counts the process's open files, by kind, and what its inotify descriptors watch.
func (n *node) descriptors() sample {
	n.t.Helper()
	proc := fmt.Sprintf("/proc/%d", n.daemon.PID())
	s := sample{inotify: 0, sockets: 0, files: 0, watches: 0}
	for _, fd := range names(n.t, proc+"/fd") {
		to, err := os.Readlink(filepath.Join(proc, "fd", fd))
		switch {
		case err != nil: // closed meanwhile
		case strings.HasPrefix(to, "socket:"):
			s[sockets]++
		case strings.HasSuffix(to, "inotify"):
			s[inotify]++
			info, err := os.ReadFile(filepath.Join(proc, "fdinfo", fd))
			n.must(err)
			s[watches] += float64(bytes.Count(info, []byte("\ninotify wd:")))
		default:
			s[files]++
		}
	}
	return s
}

// directories are the names of the pods' directories that are there.
func (n *node) directories() []string { return names(n.t, filepath.Join(n.root, "pods")) }

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// row is a line of a table of samples.
func (s sample) row() string {
	return fmt.Sprintf("%.0f goroutines beside those of %.0f sockets, %.0f inotify + %.0f other descriptors, %.0f watches, heap %.2f MiB in %.0f objects, "+
		"%.1f MiB resident, %.0f series, %.0f surplus directories", s[goroutines], s[sockets], s[inotify], s[files], s[watches],
		s[heapBytes]/(1<<20), s[heapObjects], s[resident]/(1<<20), s[series], s[surplus])
}
