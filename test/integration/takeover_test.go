package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestTakeOver: a standby holds the lock and has adopted every token within a second of the other one's end, however
// that came, also on a root that was made anew under both; nothing is requested. It is not parallel, for the sake of
// its times.
func TestTakeOver(t *testing.T) {
	ends := map[string]func(*daemon){
		"SIGTERM": func(d *daemon) { d.Terminate() },
		"kill -9": func(d *daemon) { d.Kill() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) { takeOver(t, end, 10, 5, false) })
		t.Run(name+", root made anew", func(t *testing.T) { takeOver(t, end, 3, 1, true) })
	}
}

// takeOver is the rounds of one kind, of which so many must be soon over: others may meet a busy machine. Whoever took over
// is the next to end. A root made anew takes five seconds to be seen: there are no more such rounds than it needs.
func takeOver(t *testing.T, end func(*daemon), rounds, soon int, recreate bool) {
	w := newWorld(t, fakeapi.Options{})
	w.root = filepath.Join(w.root, "root")
	pod := w.pod("demo", "web", tokenVolume("vault", "vault", 7200))
	holder := w.start()
	w.waitPublished(pod)
	var took []time.Duration
	for range rounds {
		standby := w.start()
		standby.Line("another process holds the root; standing by")
		standby.waitReady()
		if recreate {
			before := w.contents(pod)
			check(t, os.Rename(w.root, w.root+"-old"))
			check(t, os.Mkdir(w.root, 0o700))
			w.waitRenewed(before, pod)
			holder, standby = w.roles(holder, standby)
			check(t, os.RemoveAll(w.root+"-old"))
		}
		adopted := standby.metric("token_projector_adopted_tokens_total")
		w.api.ForgetRequests()
		end(holder)
		ended := time.Now()
		eventually(t, "adoption", func() bool { return standby.metric("token_projector_adopted_tokens_total") == adopted+2 })
		took = append(took, time.Since(ended))
		slices.Sort(took)
		if n := len(w.api.Requests(fakeapi.TokenRequests)); n != 0 {
			t.Errorf("%d token requests", n)
		}
		if holder = standby; recreate && len(took) >= soon && took[soon-1] <= time.Second {
			break
		}
	}
	t.Logf("%d take-overs: median %v, worst %v", len(took), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
	if took[soon-1] > time.Second {
		t.Errorf("fewer than %d of them took less than a second: %v", soon, took)
	}
}

// roles waits until one of two daemons holds the root, with its volumes, and the other stands by.
func (w *world) roles(a, b *daemon) (holder, standby *daemon) {
	w.t.Helper()
	holds := func(d *daemon) bool { return d.metric("token_projector_root_lock_held") == 1 }
	eventually(w.t, "one holder and one standby", func() bool {
		if holder, standby = a, b; holds(b) {
			holder, standby = b, a
		}
		return holds(holder) && !holds(standby) && standby.probe("/readyz") == http.StatusOK &&
			holder.metric("token_projector_volumes", "state", "ready") == 2
	})
	return holder, standby
}
