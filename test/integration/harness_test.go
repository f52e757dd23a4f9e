package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/token-projector/token-projector/test/fakeapi"
)

const node = "node-1"

// patience bounds every wait. Nothing here is timed; it only ends a hopeless test.
const patience = 60 * time.Second

var binary string

// TestMain builds the daemon, unless TOKEN_PROJECTOR_BINARY names one: where
// the tests run as a user who cannot build.
func TestMain(m *testing.M) {
	os.Exit(runWithDaemon(m))
}

func runWithDaemon(m *testing.M) int {
	if binary = os.Getenv("TOKEN_PROJECTOR_BINARY"); binary != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "token-projector-integration-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "token-projector")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../../cmd/token-projector")...)
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the daemon:", err)
		return 1
	}
	return m.Run()
}

// world is one fake API server, one root, and the daemons run on them.
type world struct {
	t          *testing.T
	api        *fakeapi.Server
	kubeconfig string
	root       string
}

func newWorld(t *testing.T, o fakeapi.Options) *world {
	t.Helper()
	o.Node = node
	api, err := fakeapi.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	w := &world{t: t, api: api, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), root: memoryDir(t)}
	if err := api.WriteKubeconfig(w.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return w
}

// memoryDir is a fresh directory, in memory if the machine has such a place.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "token-projector-")
	if err != nil {
		dir, err = os.MkdirTemp("", "token-projector-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// daemon is one run of the real binary.
type daemon struct {
	*world
	cmd     *exec.Cmd
	output  *output
	metrics string
	health  string
	exited  chan struct{}
	err     error
}

// output collects what a process prints and lets tests wait for it.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) next() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// launch starts the binary and nothing more.
func (w *world) launch(args ...string) *daemon {
	w.t.Helper()
	d := &daemon{world: w, output: &output{changed: make(chan struct{})}, exited: make(chan struct{})}
	d.cmd = exec.Command(binary, args...)
	d.cmd.Stderr, d.cmd.Stdout = d.output, d.output
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	w.t.Cleanup(d.finish)
	return d
}

// start starts the daemon on this world, and waits until it serves.
func (w *world) start(extra ...string) *daemon {
	w.t.Helper()
	d := w.launch(append([]string{
		"run", "--node-name", node, "--kubeconfig", w.kubeconfig, "--root-dir", w.root,
		"--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0", "--log-level", "debug",
	}, extra...)...)
	d.metrics, d.health = d.address("serving metrics"), d.address("serving health")
	return d
}

// address waits for the log line with that message and returns its address.
func (d *daemon) address(msg string) string {
	d.t.Helper()
	return d.line(msg)["address"].(string)
}

// line waits for the log line with that message.
func (d *daemon) line(msg string) map[string]any {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	for {
		text, changed := d.output.next()
		for l := range strings.Lines(text) {
			var entry map[string]any
			if json.Unmarshal([]byte(l), &entry) == nil && entry["msg"] == msg {
				return entry
			}
		}
		select {
		case <-changed:
		case <-d.exited:
			d.t.Fatalf("daemon ended (%v) before it said %q:\n%s", d.err, msg, d.output)
		case <-ctx.Done():
			d.t.Fatalf("daemon never said %q:\n%s", msg, d.output)
		}
	}
}

// finish ends the process if the test did not, and looks for what must never
// be in its output.
func (d *daemon) finish() {
	d.cmd.Process.Kill()
	<-d.exited
	text := d.output.String()
	if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		d.t.Errorf("daemon:\n%s", text)
	}
	tokens := d.api.TokenBytes()
	if len(tokens) > 0 && leaked(text+" "+string(tokens[0]), tokens) == 0 {
		d.t.Error("the search misses a planted token")
	}
	if n := leaked(text, tokens); n > 0 {
		d.t.Errorf("%d tokens in the daemon's output", n)
	}
	if d.t.Failed() {
		d.t.Logf("daemon's output:\n%s", tail(text, 60))
	}
}

// leaked counts the tokens of which the text holds the payload or signature.
func leaked(text string, tokens [][]byte) int {
	n := 0
	for _, token := range tokens {
		for i, part := range strings.Split(string(token), ".") {
			if i > 0 && len(part) > 16 && strings.Contains(text, part) {
				n++
				break
			}
		}
	}
	return n
}

func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// terminate sends SIGTERM and expects a clean end.
func (d *daemon) terminate() {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGTERM)
	d.exit(0)
}

// kill is kill -9.
func (d *daemon) kill() {
	d.cmd.Process.Kill()
	<-d.exited
}

// exit waits for the process to end with that status.
func (d *daemon) exit(status int) {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatalf("daemon does not end:\n%s", tail(d.output.String(), 30))
	}
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](d.err); ok {
		got = e.ExitCode()
	} else if d.err != nil {
		d.t.Fatal(d.err)
	}
	if got != status {
		d.t.Fatalf("exit status %d, want %d:\n%s", got, status, tail(d.output.String(), 30))
	}
}

// probe asks a health endpoint and returns the status code.
func (d *daemon) probe(path string) int {
	d.t.Helper()
	resp, err := http.Get("http://" + d.health + path)
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
	families := d.scrape()
	f := families[name]
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

func (d *daemon) scrape() map[string]*dto.MetricFamily {
	d.t.Helper()
	resp, err := http.Get("http://" + d.metrics + "/metrics")
	if err != nil {
		d.t.Fatalf("scrape: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatalf("scrape: %v", err)
	}
	if leaked(string(body), d.api.TokenBytes()) > 0 {
		d.t.Error("a token in the metrics")
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		d.t.Fatalf("scrape: %v", err)
	}
	return families
}

// eventually polls: what it waits for happens in another process.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
