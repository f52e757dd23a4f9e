package integration

import (
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// expired counts the files whose tokens are no good at that time.
func expired(t *testing.T, paths []string, now time.Time) int {
	t.Helper()
	n := 0
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := projector.ParseClaims(data); err != nil || c.Lifetime.Expired(now) {
			n++
		}
	}
	return n
}

// TestSuspended: the daemon stands still until every token has expired; when it goes on, all are renewed within two
// seconds, also when it is started anew instead. A time that is over is taken once more: one may meet a busy machine.
func TestSuspended(t *testing.T) {
	for name, goOn := range map[string]func(*daemon) *daemon{
		"goes on": func(d *daemon) *daemon { d.Resume(); return d },
		"started anew": func(d *daemon) *daemon {
			d.Kill()
			return d.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 8 * time.Second})
			d := w.start()
			var paths []string
			for _, pod := range []string{"a", "b", "c", "d", "e"} {
				pod := w.pod("demo", pod, tokenVolume("vault", "vault", 600))
				w.waitPublished(pod)
				paths = append(paths, w.tokens(pod)...)
			}
			const soon = 2 * time.Second
			took := soon + 1
			for try := 0; try < 2 && took > soon; try++ {
				d.Suspend()
				eventually(t, "every token expired", func() bool { return expired(t, paths, time.Now()) == len(paths) })
				d = goOn(d)
				resumed := time.Now() // of a new daemon: it serves, and has not read anything
				eventually(t, "every token renewed", func() bool { return expired(t, paths, time.Now()) == 0 })
				took = time.Since(resumed)
				t.Logf("%d expired tokens are renewed after %v", len(paths), took.Round(time.Millisecond))
			}
			if took > soon {
				t.Errorf("expired tokens are renewed after %v, twice in a row", took)
			}
			d.Terminate()
		})
	}
}

// TestServerStepped: the server's clock is put ahead, and back again, under a running daemon. Tokens that have expired by
// it are renewed, and so are those that it says are of its future; what is good by it is left alone.
func TestServerStepped(t *testing.T) {
	for name, tt := range map[string]struct {
		step  time.Duration
		renew int
	}{
		"ahead, tokens live on":      {3 * time.Minute, 0},
		"ahead, past their expiry":   {3 * time.Hour, 2},
		"back, tokens not valid yet": {-time.Hour, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var step atomic.Int64
			w := newWorld(t, fakeapi.Options{Now: func() time.Time { return time.Now().Add(time.Duration(step.Load())) }})
			if tt.renew == 0 { // nor is any due for half an hour
				w.api.Inject(fakeapi.Fault{Match: fakeapi.TokenRequests, Token: &fakeapi.TokenEdit{Lifetime: 24 * time.Hour}})
			}
			d := w.start()
			pod := w.pod("demo", "web", tokenVolume("vault", "vault", 7200))
			w.waitPublished(pod)
			before := w.contents(pod)
			w.api.ForgetRequests()
			step.Store(int64(tt.step))
			w.waitPublished(w.pod("demo", "later")) // its answer tells the time
			if tt.renew > 0 {
				w.waitRenewed(before, pod)
			}
			d.Terminate()
			if n := len(w.api.Requests(fakeapi.TokenRequests)); n != tt.renew+1 {
				t.Errorf("%d token requests, want %d and the new pod's", n, tt.renew)
			}
		})
	}
}
