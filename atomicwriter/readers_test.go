package atomicwriter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// numbered is a volume in which every file tells the number of its version many times over.
func numbered(n int) []File {
	body := strings.Repeat(fmt.Sprintf("%08d\n", n), 120)
	return files("a", body, "b", body, "dir/c", body)
}

// number returns the number that a file's content tells, or an error for a torn one.
func number(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var n int
	if _, err := fmt.Sscanf(string(b), "%d\n", &n); err != nil {
		return 0, fmt.Errorf("torn: %w", err)
	}
	if string(b) != string(numbered(n)[0].Data) {
		return 0, errors.New("torn: several versions in one file")
	}
	return n, nil
}

// readers read a volume by name and through ..data until one sees an anomaly, or are stopped.
type readers struct {
	dir     string
	old     sync.RWMutex // held while versions are in use; a publisher sweeps when it gets it
	reads   atomic.Int64
	stop    chan struct{}
	anomaly chan error
	wg      sync.WaitGroup
}

func startReaders(dir string) *readers {
	r := &readers{dir: dir, stop: make(chan struct{}), anomaly: make(chan error, 8)}
	for _, read := range []func() error{r.byName, r.byName, r.byVersion, r.byVersion} {
		r.wg.Go(func() { r.loop(read) })
	}
	return r
}

func (r *readers) loop(read func() error) {
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		r.old.RLock()
		err := read()
		r.old.RUnlock()
		r.reads.Add(1)
		if err != nil {
			r.anomaly <- err
			return
		}
	}
}

// byName opens each file anew: none is missing or torn, and a later one is never older.
func (r *readers) byName() error {
	last := 0
	for _, name := range []string{"a", "b", "dir/c"} {
		n, err := number(filepath.Join(r.dir, name))
		if err != nil {
			return fmt.Errorf("by name: %s: %w", name, err)
		}
		if n < last {
			return fmt.Errorf("by name: %s of %d after another of %d", name, n, last)
		}
		last = n
	}
	return nil
}

// byVersion opens ..data once: all its files are of one version.
func (r *readers) byVersion() error {
	data, err := os.Open(filepath.Join(r.dir, dataLink))
	if err != nil {
		return err
	}
	defer data.Close()
	self := fmt.Sprintf("/proc/self/fd/%d/", data.Fd())
	var got [3]int
	for i, name := range []string{"a", "b", "dir/c"} {
		if got[i], err = number(self + name); err != nil {
			return fmt.Errorf("by version: %s: %w", name, err)
		}
	}
	if got[0] != got[1] || got[1] != got[2] {
		return fmt.Errorf("by version: mixed: %v", got)
	}
	return nil
}

// end stops the readers and returns the first anomaly.
func (r *readers) end() error {
	close(r.stop)
	r.wg.Wait()
	select {
	case err := <-r.anomaly:
		return err
	default:
		return nil
	}
}

// TestReaders lets readers loose on thousands of publishes. Before that, they must catch a writer that
// writes the files in place.
func TestReaders(t *testing.T) {
	t.Run("planted", func(t *testing.T) {
		dir, d := volume(t)
		publish(t, d, Written, numbered(1), at(1))
		r := startReaders(dir)
		for i := 2; len(r.anomaly) == 0; i++ {
			for _, f := range numbered(i) {
				check(t, os.WriteFile(filepath.Join(dir, f.Path), f.Data, 0o644))
			}
		}
		if r.end() == nil {
			t.Fatal("a writer in place was not caught")
		}
	})
	t.Run("publish", func(t *testing.T) {
		dir, d := volume(t)
		publish(t, d, Written, numbered(1), at(1))
		r := startReaders(dir)
		const publishes = 1000
		var stale []string
		for i := 2; i < publishes && len(r.anomaly) == 0; i++ {
			stale = must(d.Publish(numbered(i), at(i)))(t).Stale
			if i%50 == 0 {
				r.old.Lock()
				check(t, d.Sweep(stale))
				r.old.Unlock()
			}
		}
		check(t, r.end())
		if got := r.reads.Load(); got < 100 {
			t.Fatalf("only %d reads", got)
		}
	})
}
