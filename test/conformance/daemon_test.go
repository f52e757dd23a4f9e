package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// patience bounds every wait for something that must come. It is generous: the machine may be small and busy.
const patience = 90 * time.Second

// eventually polls until condition says nothing is wrong; what it says last is the failure.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	within(t, patience, condition)
}

// within is eventually for what may take longer than others.
func within(t *testing.T, limit time.Duration, condition func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	t.Fatalf("after %v: %v", limit, err)
}

// daemon is a started `token-projector run`.
type daemon struct {
	cmd     *exec.Cmd
	logFile string
	metrics string // URL
	health  string // URL of the probes, without their path
	done    chan error
}

// addressFlags let every daemon of a run choose free ports. The last of two equal flags counts.
var addressFlags = []string{"--metrics-address=127.0.0.1:0", "--health-address=127.0.0.1:0"}

// startDaemon runs the image's binary with the given flags and waits until it is ready. It ends with whole at the latest,
// which is t or a test around it.
func startDaemon(t, whole *testing.T, flags ...string) *daemon {
	t.Helper()
	cmd := exec.Command(image.binary, append(append([]string{"run"}, flags...), addressFlags...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return startCommand(t, whole, cmd)
}

func startCommand(t, whole *testing.T, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := launch(t, whole, cmd)
	eventually(t, d.ready)
	return d
}

// launch starts a daemon that may never become ready.
func launch(t, whole *testing.T, cmd *exec.Cmd) *daemon {
	t.Helper()
	log, err := os.Create(filepath.Join(whole.TempDir(), "daemon.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the daemon: %v", err)
	}
	d := &daemon{cmd: cmd, logFile: log.Name(), done: make(chan error, 1)}
	go func() { d.done <- cmd.Wait(); close(d.done) }()
	whole.Cleanup(func() { d.end(whole) })
	return d
}

// jwt matches a token. The header of each begins with {" in base64.
var jwt = regexp.MustCompile(`eyJ[\w-]*\.[\w-]*\.[\w-]*`)

// end kills what still runs, and shows the log of a test that failed.
func (d *daemon) end(t *testing.T) {
	_ = d.cmd.Process.Kill() // an error means it has ended
	<-d.done
	if log, err := os.ReadFile(d.logFile); t.Failed() && err == nil {
		log = jwt.ReplaceAll(log, []byte("(a token)")) // the failure may be that there is one
		t.Logf("the daemon's log, its end:\n%s", log[max(0, len(log)-4<<10):])
	}
}

// ready says what is missing until the daemon is ready.
func (d *daemon) ready() error {
	select {
	case err := <-d.done:
		return fmt.Errorf("the daemon has ended: %v", err)
	default:
	}
	metrics, health, err := d.addresses()
	if err != nil {
		return err
	}
	d.metrics, d.health = "http://"+metrics+"/metrics", "http://"+health
	_, err = get(d.health + "/readyz")
	return err
}

// addresses reads from the log where the daemon serves metrics and health.
func (d *daemon) addresses() (metrics, health string, err error) {
	log, err := os.ReadFile(d.logFile)
	if err != nil {
		return "", "", err
	}
	for line := range bytes.Lines(log) {
		var entry struct{ Msg, Message, Address string }
		if json.Unmarshal(line, &entry) != nil {
			continue // client-go may print lines of its own, and the last one may be half written
		}
		switch entry.Msg + entry.Message {
		case "serving metrics":
			metrics = entry.Address
		case "serving health":
			health = entry.Address
		}
	}
	if metrics == "" || health == "" {
		return "", "", fmt.Errorf("the daemon has not said where it serves metrics (%q) and health (%q)", metrics, health)
	}
	return metrics, health, nil
}

func get(url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return body, err
}

// metric returns the value of the metric with these labels (name, value, name, value...), and whether there is one.
func (d *daemon) metric(name string, labels ...string) (float64, bool, error) {
	families, err := d.scrape()
	if err != nil {
		return 0, false, err
	}
	for _, m := range families[name].GetMetric() {
		if hasLabels(m, labels) {
			return m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue(), true, nil
		}
	}
	return 0, false, nil
}

// scrape reads all metrics, by name.
func (d *daemon) scrape() (map[string]*dto.MetricFamily, error) {
	body, err := get(d.metrics)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("parse metrics: %w", err)
	}
	return families, nil
}

func hasLabels(m *dto.Metric, labels []string) bool {
	have := map[string]string{}
	for _, pair := range m.GetLabel() {
		have[pair.GetName()] = pair.GetValue()
	}
	for i := 0; i < len(labels); i += 2 {
		if have[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// wantMetric says when the metric is not want.
func (d *daemon) wantMetric(want float64, name string, labels ...string) error {
	got, ok, err := d.metric(name, labels...)
	if err == nil && (!ok || got != want) {
		err = fmt.Errorf("%s%q = %v (present: %t), want %v", name, labels, got, ok, want)
	}
	return err
}

// kill ends the daemon as a crash would.
func (d *daemon) kill(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatalf("kill -9: %v", err)
	}
	<-d.done
}

// terminate ends the daemon with SIGTERM and returns how it ended.
func (d *daemon) terminate(t *testing.T) error {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("terminate: %v", err)
	}
	select {
	case err := <-d.done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("the daemon still runs %v after SIGTERM", patience)
	}
}
