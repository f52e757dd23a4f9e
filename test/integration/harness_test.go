package integration

import (
	"io"
	"net/http"
	"os"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

const node = daemontest.Node

func TestMain(m *testing.M) { os.Exit(daemontest.Main(m)) }

// world is one fake API server, one root, and the daemons run on them.
type world struct {
	t    *testing.T
	api  *fakeapi.Server
	root string
}

func newWorld(t *testing.T, o fakeapi.Options) *world {
	t.Helper()
	o.Node = node
	api, err := fakeapi.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	return &world{t: t, api: api, root: daemontest.MemoryDir(t)}
}

// daemon is one run of the real binary.
type daemon struct {
	*world
	*daemontest.Process
}

// start starts the daemon on this world, and waits until it serves.
func (w *world) start(extra ...string) *daemon {
	w.t.Helper()
	return &daemon{w, daemontest.Start(w.t, w.api, w.root, extra...)}
}

// probe asks a health endpoint and returns the status code.
func (d *daemon) probe(path string) int {
	d.t.Helper()
	resp, err := http.Get("http://" + d.Health + path)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func (d *daemon) waitReady() {
	d.t.Helper()
	eventually(d.t, "ready", func() bool { return d.probe("/readyz") == http.StatusOK })
}

// metric is the sum of the samples of a family that have the label pairs.
func (d *daemon) metric(name string, labels ...string) float64 {
	d.t.Helper()
	f := d.Scrape()[name]
	if f == nil {
		return -1
	}
	sum := 0.0
	for _, m := range f.Metric {
		if matches(m, labels) {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

func matches(m *dto.Metric, labels []string) bool {
	have := make(map[string]string)
	for _, l := range m.Label {
		have[l.GetName()] = l.GetValue()
	}
	for i := 0; i+1 < len(labels); i += 2 {
		if have[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	daemontest.Eventually(t, what, ok)
}
