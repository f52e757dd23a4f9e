package integration

import (
	"testing"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestGarbage: less garbage piles up than by Go's own rule, unless whoever starts the daemon wants it otherwise.
func TestGarbage(t *testing.T) {
	for given, want := range map[string]float64{"": 50, "200": 200} {
		t.Setenv("GOGC", given)
		d := newWorld(t, fakeapi.Options{}).start()
		if got := d.metric("go_gc_gogc_percent"); got != want {
			t.Errorf("GOGC=%q: %v percent, want %v", given, got, want)
		}
	}
}
