//go:build prometheus

package prometheus

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

func TestMain(m *testing.M) { os.Exit(daemontest.Main(m)) }

// promtool runs Prometheus's tool, and returns what it says and whether it is content.
func promtool(t *testing.T, stdin string, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "promtool", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// TestAlerts: each alert fires when it should, and no other time; and the tests notice if it does not.
func TestAlerts(t *testing.T) {
	const tests = "testdata/alerts.test.yml"
	for _, args := range [][]string{{"check", "rules", alertsFile}, {"test", "rules", tests}} {
		if said, ok := promtool(t, "", args...); !ok {
			t.Errorf("promtool %q: %s", args, said)
		}
	}
	var g groups
	text := read(t, alertsFile, &g)
	cases, err := os.ReadFile(tests)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range g.Groups[0].Rules {
		for what, expr := range map[string]string{"never fires": "vector(0) > 1", "always fires": `label_replace(vector(1), "instance", "good", "", "")`} {
			dir := t.TempDir()
			begin := strings.Index(text, "- alert: "+r.Alert+"\n")
			head, body := text[:begin], text[begin:]
			end := strings.Index(body, "    annotations:")
			body = "- alert: " + r.Alert + "\n    expr: " + expr + "\n    labels: {severity: planted}\n" + body[end:]
			planted := strings.ReplaceAll(string(cases), "../../../deploy/prometheus/alerts.yml", "alerts.yml")
			for name, content := range map[string]string{"alerts.yml": head + body, "test.yml": planted} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if said, ok := promtool(t, "", "check", "rules", filepath.Join(dir, "alerts.yml")); !ok {
				t.Fatalf("%s that %s is no rule: %s", r.Alert, what, said)
			}
			if _, ok := promtool(t, "", "test", "rules", filepath.Join(dir, "test.yml")); ok {
				t.Errorf("%s that %s is not noticed", r.Alert, what)
			}
		}
	}
}

// TestMetricsAreClean: promtool has nothing to say about what run and observe serve.
func TestMetricsAreClean(t *testing.T) {
	w := newWorld(t)
	for name, address := range map[string]string{"run": w.run.Metrics, "observe": w.observe} {
		text := scrape(t, address)
		if said, ok := promtool(t, text, "check", "metrics"); !ok || said != "" {
			t.Errorf("%s: %s", name, said)
		}
		if _, ok := promtool(t, text+"# TYPE planted counter\nplanted 1\n", "check", "metrics"); ok {
			t.Errorf("%s: a planted fault is not noticed", name)
		}
	}
}

// world is a daemon with a pod's tokens, and somebody who observes them.
type world struct {
	run     *daemontest.Process
	observe string // the address of its metrics
}

func newWorld(t *testing.T) *world {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{Node: daemontest.Node})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	root := daemontest.MemoryDir(t)
	w := &world{run: daemontest.Start(t, api, root)}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "web"},
		Spec:       corev1.PodSpec{NodeName: daemontest.Node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	if err := api.AddNamespace("demo"); err != nil {
		t.Fatal(err)
	}
	if _, err := fakeapi.Create(api, pod); err != nil {
		t.Fatal(err)
	}
	daemontest.Eventually(t, "a fresh token", func() bool {
		return strings.Contains(scrape(t, w.run.Metrics), "token_projector_tokens{state=\"fresh\"} 1\n")
	})
	w.observe = daemontest.Observe(t, root)
	daemontest.Eventually(t, "a fresh token observed", func() bool {
		return strings.Contains(scrape(t, w.observe), "token_projector_tokens{state=\"fresh\"} 1\n")
	})
	return w
}

func scrape(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, resp.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
