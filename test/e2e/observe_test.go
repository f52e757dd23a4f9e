//go:build e2e

package e2e

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/token-projector/token-projector/test/daemontest"
)

// TestObserveCapabilities: with the capability of its overlay, observe reads a token that only a pod's user and group may read. Without
// it, it says that it can not.
func TestObserveCapabilities(t *testing.T) {
	t.Parallel()
	n := newNode(t, daemontest.MemoryDir(t))
	n.start()
	n.measure("the token", n.published(n.token(n.ownedPod("owned"))))
	all := capabilities(t, observeManifest)
	if !slices.Equal(all, []string{"DAC_READ_SEARCH"}) {
		t.Errorf("the manifest keeps %q", all)
	}
	for _, c := range []struct {
		keep        []string
		fresh, none string
	}{{all, "1", "0"}, {nil, "0", "1"}} {
		address := daemontest.ObserveUnder(t, under(c.keep), n.root)
		n.measure("a look", func() bool {
			text := scrape(t, address)
			return strings.Contains(text, `token_projector_tokens{state="fresh"} `+c.fresh+"\n") &&
				strings.Contains(text, "token_projector_unreadable_volumes "+c.none+"\n")
		})
	}
}

// scrape is what is exposed at an address. Who does not answer any more has ended, which is a failure.
func scrape(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	return string(body)
}
