package projector

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAdoptedLinks: what somebody did to a volume's links while no daemon ran is undone at once, not with the next
// sweep, and no container starts before.
func TestAdoptedLinks(t *testing.T) {
	root := openTestRoot(t, memoryDir(t))
	defer root.Close()
	d, first := &disk{root: root}, settled(t, 0, 0)
	first.s.self = root.owner()
	first.apply(lonePod(1, 600))
	first.runOn(d, time.Second)
	link := filepath.Join(root.Path(extra(1)), "extra-token")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	r := first.restarted(time.Second)
	r.s.self = root.owner()
	r.apply(lonePod(1, 600))
	r.turn()
	r.finishOn(d, r.flight(isRead))
	if v := r.volume(extra(1)); !v.whole || v.ready(r.server()) || v.lacks() == "" {
		t.Errorf("read, and nothing more: whole %v, ready %v, lacks %q", v.whole, v.ready(r.server()), v.lacks())
	}
	r.runOn(d, time.Second)
	if _, err := os.Stat(link); err != nil || !r.volume(extra(1)).ready(r.server()) || len(r.requests) != 0 {
		t.Errorf("a second later: %v, ready %v, %d requests", err, r.volume(extra(1)).ready(r.server()), len(r.requests))
	}
}
