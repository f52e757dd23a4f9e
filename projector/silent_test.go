package projector

import (
	"context"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestHealthyNodeIsSilent: while all is well nothing is logged for an hour, in which every token is refreshed and every volume read. What goes
// wrong is said when it begins and when it ends, and not in between.
func TestHealthyNodeIsSilent(t *testing.T) {
	const pods = 20
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		root := openTestRoot(t, dir)
		defer root.Close()
		core, logged := observer.New(zap.InfoLevel)
		issue := &issuer{now: time.Now}
		p, err := New(Config{NodeName: "node", Root: root, Mint: issue.mint, NoWatches: true, Log: zap.New(core)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		p.Replace(nil)
		for n := range pods {
			pod := testPod(n, "vault", 600)
			pod.Spec.Volumes = pod.Spec.Volumes[1:]
			p.Apply(Desired(pod, SelectAll))
		}
		time.Sleep(time.Minute)
		if published := logged.FilterMessage("volume published").Len(); published != pods {
			t.Errorf("%d volumes are said to be published, of %d", published, pods)
		}
		logged.TakeAll()
		before := issue.requests()
		time.Sleep(time.Hour)
		if n := issue.requests() - before; n < 6*pods {
			t.Errorf("only %d refreshes in an hour", n)
		}
		for _, l := range logged.TakeAll() {
			t.Errorf("all is well, and it says: %s %v", l.Message, l.ContextMap())
		}

		issue.failing(func(r Request) error {
			if r.PodName == "pod-1" {
				return &MintError{Code: 403, Message: "planted"}
			}
			return nil
		})
		time.Sleep(time.Hour)
		issue.failing(nil)
		time.Sleep(time.Hour)
		said := logged.TakeAll()
		if len(said) != 2 {
			t.Errorf("%d lines for a failure of an hour, want one at its begin and one at its end", len(said))
		}
		for _, l := range said {
			if m := l.ContextMap(); !names(m) {
				t.Errorf("%s does not say of what: %v", l.Message, m)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// names reports whether a line names the volume that failed.
func names(line map[string]any) bool {
	named := map[string]any{"namespace": "default", "pod": "pod-1", "pod_uid": "uid-1", "volume": "extra"}
	maps.DeleteFunc(line, func(key string, _ any) bool { return named[key] == nil })
	return maps.Equal(line, named)
}

// failing sets what fails from now on.
func (i *issuer) failing(fail func(Request) error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = fail
}
