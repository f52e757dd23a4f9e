package integration

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestGrantedLifetime walks the server's clock through two lifetimes of tokens that live much longer or shorter than
// they were asked for: the lifetime that was granted decides when they are renewed, and none is ever seen expired.
func TestGrantedLifetime(t *testing.T) {
	for name, tt := range map[string]struct {
		asked, granted time.Duration
		// Renewals of a token in two lifetimes. The clock goes in steps, so that refreshes are late, and the next one after a late one may
		// be anywhere in the token's life: half of it in the mean.
		fewest, most int
	}{
		"10 min for 24 h": {24 * time.Hour, 10 * time.Minute, 2, 10},
		"48 h for 1 h":    {time.Hour, 48 * time.Hour, 3, 14}, // each is renewed within a day
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64
			now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			w := newWorld(t, fakeapi.Options{Now: now, NoAPIAccessVolume: true})
			w.api.Inject(fakeapi.Fault{Match: fakeapi.TokenRequests, Token: &fakeapi.TokenEdit{Lifetime: tt.granted}})
			d := w.start()
			var pods []*corev1.Pod
			for i := range 5 {
				pods = append(pods, w.pod("demo", fmt.Sprintf("web-%d", i), tokenVolume("vault", "vault", int64(tt.asked.Seconds()))))
			}
			w.waitPublished(pods...)
			seen := map[string]map[string]bool{}
			const steps = 30 // each a fifteenth of a lifetime: at four fifths and one step a token has not expired
			for step := range steps {
				ahead.Add(int64(2 * tt.granted / steps))
				if n := expired(t, w.tokensOf(pods), now()); n > 0 {
					t.Errorf("step %d: %d tokens have expired", step, n)
				}
				w.tell(fmt.Sprintf("tells-%d", step))
				eventually(t, "tokens within their limit", func() bool { return w.overdue(pods, now()) == 0 })
				note(seen, w.contents(pods...))
			}
			for path, tokens := range seen {
				if n := len(tokens) - 1; n < tt.fewest || n > tt.most {
					t.Errorf("%s was renewed %d times, want %d to %d", path, n, tt.fewest, tt.most)
				}
			}
			d.Terminate()
		})
	}
}

// tell makes a pod, whose token's answer tells the daemon the server's time, and removes it.
func (w *world) tell(name string) {
	w.t.Helper()
	pod := w.pod("tellers", name, tokenVolume("vault", "vault", 600))
	w.waitPublished(pod)
	check(w.t, w.api.Delete(pod, atOnce()))
}

func (w *world) tokensOf(pods []*corev1.Pod) (paths []string) {
	for _, pod := range pods {
		paths = append(paths, w.tokens(pod)...)
	}
	return paths
}

// overdue counts the tokens that should have been renewed by now.
func (w *world) overdue(pods []*corev1.Pod, now time.Time) (n int) {
	w.t.Helper()
	for _, data := range w.contents(pods...) {
		c, err := projector.ParseClaims(data)
		check(w.t, err)
		if !now.Before(c.Lifetime.Limit()) {
			n++
		}
	}
	return n
}

func note(seen map[string]map[string]bool, contents map[string][]byte) {
	for path, data := range contents {
		if seen[path] == nil {
			seen[path] = make(map[string]bool)
		}
		seen[path][string(data)] = true
	}
}

// TestShortLifetime: 10 s are granted for an hour.
func TestShortLifetime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	w.api.Inject(fakeapi.Fault{Match: fakeapi.TokenRequests, Token: &fakeapi.TokenEdit{Lifetime: 10 * time.Second}})
	d := w.start()
	pod := w.pod("demo", "web", tokenVolume("vault", "vault", 3600))
	w.waitPublished(pod)
	r := startReader(time.Now, w.tokens(pod)...)
	eventually(t, "two rotations", func() bool { return r.rotations() >= 2 })
	r.stop(t)
	d.Terminate()
}
