package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestInspect: what the daemon published is seen without it, as the daemon sees it, and the API server is asked about it.
func TestInspect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	kept, deleted := w.pod("demo", "kept", tokenVolume("vault", "vault", 7200)), w.pod("demo", "deleted", tokenVolume("vault", "vault", 600))
	w.waitPublished(kept)
	w.waitPublished(deleted)
	d.Terminate()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := w.api.WriteKubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}

	var tokens [][]byte
	for _, pod := range []*corev1.Pod{kept, deleted} {
		for _, volume := range []string{"vault", apiVolume(pod)} {
			token, err := os.ReadFile(w.path(pod, volume, "token"))
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, token)
		}
	}
	for _, output := range []string{"table", "wide", "json", "yaml"} {
		stdout, stderr, status := daemontest.Command(t, "inspect", "--root-dir", w.root, "-o", output)
		if daemontest.Leaked(stdout+string(tokens[0]), tokens) == 0 {
			t.Fatal("a planted token is not found")
		}
		if status != 0 || stderr != "" || daemontest.Leaked(stdout, tokens) > 0 {
			t.Errorf("-o %s: exit status %d, %d tokens in the output", output, status, daemontest.Leaked(stdout, tokens))
		}
	}

	review := []string{"inspect", "--root-dir", w.root, "-o", "json", "--verify", "review", "--kubeconfig", kubeconfig}
	states := map[string]int{}
	for _, s := range inspect(t, 0, review...) {
		states[s.Namespace+"/"+s.Pod+" "+s.State]++
	}
	if len(states) != 2 || states["demo/kept fresh"] != 2 || states["demo/deleted fresh"] != 2 {
		t.Errorf("seen: %v", states)
	}
	if err := w.api.Delete(deleted, atOnce()); err != nil {
		t.Fatal(err)
	}
	clear(states)
	for _, s := range inspect(t, 1, review...) {
		states[s.Pod+" "+s.State]++
	}
	if len(states) != 2 || states["kept fresh"] != 2 || states["deleted invalid"] != 2 {
		t.Errorf("seen after a deletion: %v", states)
	}
}

// seen is a line of inspect.
type seen struct{ Namespace, Pod, Volume, Path, State string }

// inspect runs the command, which must end with that status.
func inspect(t *testing.T, status int, args ...string) []seen {
	t.Helper()
	stdout, stderr, got := daemontest.Command(t, args...)
	var found struct{ Tokens []seen }
	if err := json.Unmarshal([]byte(stdout), &found); err != nil || got != status {
		t.Fatalf("exit status %d, want %d; %v: %s", got, status, err, stderr)
	}
	return found.Tokens
}
