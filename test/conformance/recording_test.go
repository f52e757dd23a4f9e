//go:build e2e

package conformance

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/yaml"
)

// scrapeInterval is how often a recording is made of what somebody serves.
const scrapeInterval = 5 * time.Second

// recording is what a process has served since, as Prometheus would have scraped it: gauges alone.
type recording struct {
	of      *daemon
	began   time.Time
	tick    *time.Ticker
	scrapes []scrape
}

// record begins a recording, which goes on while somebody waits for something in it.
func record(t *testing.T, of *daemon) *recording {
	r := &recording{of: of, began: time.Now(), tick: time.NewTicker(scrapeInterval)}
	t.Cleanup(r.tick.Stop)
	return r
}

// scrape is the values at one time, by series. Times are seconds since the recording began.
type scrape map[string]float64

// Series that the alerts speak of.
const (
	fresh   = `token_projector_tokens{state="fresh"}`
	stale   = `token_projector_tokens{state="stale"}`
	expired = `token_projector_tokens{state="expired"}`
	overdue = `token_projector_refresh_overdue_seconds{}`
	expiry  = `token_projector_earliest_expiration_timestamp_seconds{}`
)

// until records until a scrape is as wanted, and returns when that was, since the beginning.
func (r *recording) until(t *testing.T, limit time.Duration, what string, wanted func(scrape) bool) time.Duration {
	t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		<-r.tick.C
		s, err := r.scrape()
		if err != nil {
			t.Fatal(err)
		}
		if r.scrapes = append(r.scrapes, s); wanted(s) {
			at := time.Since(r.began)
			t.Logf("after %v: %s", at.Round(time.Second), what)
			return at
		}
	}
	t.Fatalf("after %v, and not yet %s: %v", time.Since(r.began).Round(time.Second), what, r.scrapes[len(r.scrapes)-1])
	return 0
}

func (r *recording) scrape() (scrape, error) {
	families, err := r.of.scrape()
	if err != nil {
		return nil, err
	}
	s := scrape{}
	for name, family := range families {
		if family.GetType() != dto.MetricType_GAUGE || !strings.HasPrefix(name, "token_projector_") {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, pair := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", pair.GetName(), pair.GetValue()))
			}
			value := m.GetGauge().GetValue()
			if strings.HasSuffix(name, "_timestamp_seconds") {
				value -= float64(r.began.UnixNano()) / 1e9
			}
			s[name+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	return s, nil
}

// alerted is what an alert is to be at the time of a scrape.
type alerted struct {
	scrape int
	state  string   // pending or firing
	alerts []string // those in that state, sorted
}

// judge has promtool evaluate the shipped alerts on the recording, and returns in what it is not as wanted.
func (r *recording) judge(t *testing.T, want ...alerted) error {
	t.Helper()
	series := map[string][]string{}
	for i, s := range r.scrapes {
		for name, value := range s {
			for len(series[name]) < i {
				series[name] = append(series[name], "_")
			}
			series[name] = append(series[name], strconv.FormatFloat(value, 'f', -1, 64))
		}
	}
	var input []map[string]string
	for _, name := range slices.Sorted(maps.Keys(series)) {
		input = append(input, map[string]string{"series": name, "values": strings.Join(series[name], " ")})
	}
	var tests []map[string]any
	for _, w := range want {
		samples := []map[string]any{}
		for _, alert := range w.alerts {
			samples = append(samples, map[string]any{"labels": fmt.Sprintf("{alertname=%q}", alert), "value": 1})
		}
		tests = append(tests, map[string]any{
			"expr":        fmt.Sprintf("count by (alertname) (ALERTS{alertstate=%q})", w.state),
			"eval_time":   (time.Duration(w.scrape) * scrapeInterval).String(),
			"exp_samples": samples,
		})
	}
	return promtool(t, map[string]any{
		"evaluation_interval": scrapeInterval.String(),
		"tests":               []map[string]any{{"interval": scrapeInterval.String(), "input_series": input, "promql_expr_test": tests}},
	})
}

// promtool runs a test of rules, those of deploy/, and returns what it has to say against them.
func promtool(t *testing.T, test map[string]any) error {
	t.Helper()
	rules, err := filepath.Abs(deployDir("prometheus", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	test["rule_files"] = []string{rules}
	text, err := yaml.Marshal(test)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
