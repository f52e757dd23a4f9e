//go:build e2e

package conformance

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// testInspect: the kubelet's own root is read as ours is, across its mounts, by a command that needs nothing else.
func (n *besideKubelet) testInspect(t *testing.T) {
	for root, volumes := range map[string]int{n.root: unmountedVolumes, n.kubelet.root: 2} {
		out, err := exec.Command(image.binary, "inspect", "--root-dir", root, "-o", "json").Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", root, err, out)
		}
		var found struct {
			Tokens []struct{ Namespace, Pod, State string }
		}
		if err := json.Unmarshal(out, &found); err != nil {
			t.Fatal(err)
		}
		fresh := map[string]int{}
		for _, s := range found.Tokens {
			fresh[s.Namespace+"/"+s.Pod+" "+s.State]++
		}
		for _, pod := range n.pods {
			if got := fresh[pod.Namespace+"/"+pod.Name+" fresh"]; got != volumes {
				t.Errorf("%s: %d fresh tokens of %s, want %d; all: %v", root, got, pod.Name, volumes, fresh)
			}
		}
		said := filepath.Join(t.TempDir(), "said")
		if err := os.WriteFile(said, out, 0o600); err != nil {
			t.Fatal(err)
		}
		wantNoLeak(t, said, n.tokens())
	}
}
