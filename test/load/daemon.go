package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// daemon is token-projector as a process.
type daemon struct {
	*program
	metrics, health string // URLs
	started         time.Time
}

func (w *world) startDaemon(ctx context.Context) (*daemon, error) {
	d := &daemon{started: time.Now()}
	var err error
	d.program, err = start([]string{`"serving metrics"`, `"serving health"`}, w.log, w.o.daemon, "run", "--node-name", w.o.node,
		"--kubeconfig", w.nodeKubeconfig, "--root-dir", w.root, "--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0", "--pprof")
	if err != nil {
		return nil, err
	}
	w.daemon = d
	for range 2 {
		line, err := d.line(ctx)
		if err != nil {
			return nil, err
		}
		var entry struct{ Msg, Address string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			return nil, fmt.Errorf("read the daemon's log: %w", err)
		}
		if entry.Msg == "serving metrics" {
			d.metrics = "http://" + entry.Address + "/metrics"
		} else {
			d.health = "http://" + entry.Address + "/readyz"
		}
	}
	return d, nil
}

// ready waits until the daemon says so.
func (d *daemon) ready(ctx context.Context) error {
	return d.await(ctx, "ready", 5*time.Millisecond, func() (bool, error) {
		resp, err := http.Get(d.health)
		if err != nil {
			return false, nil
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
}

// await asks again and again until the answer is yes; no program may end meanwhile.
func (p *program) await(ctx context.Context, what string, every time.Duration, yes func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if ok, err := yes(); ok || err != nil {
			return err
		}
		select {
		case <-time.After(every):
		case <-p.done:
			return p.died()
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
	}
}

// families are the daemon's metrics by their names.
type families map[string]*dto.MetricFamily

func (d *daemon) scrape() (families, error) {
	resp, err := http.Get(d.metrics)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	defer resp.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	f, err := parser.TextToMetricFamilies(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	return f, nil
}

// sum adds up a family's counters and gauges, or those with one value of its label.
func (f families) sum(name, label string) (total float64) {
	for _, m := range f["token_projector_"+name].GetMetric() {
		if label == "" || len(m.Label) > 0 && m.Label[0].GetValue() == label {
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return total
}

// by is a family of counters by the values of its label.
func (f families) by(name string) map[string]float64 {
	counts := map[string]float64{}
	for _, m := range f["token_projector_"+name].GetMetric() {
		for _, l := range m.Label {
			counts[l.GetValue()] = m.GetCounter().GetValue()
		}
	}
	return counts
}

// histogram is a family's only one.
func (f families) histogram(name string) *dto.Histogram {
	if m := f["token_projector_"+name].GetMetric(); len(m) == 1 {
		return m[0].GetHistogram()
	}
	return &dto.Histogram{}
}

// atMost is the bound of the bucket that holds the quantile: what so large a part of the observations was at most.
func atMost(h *dto.Histogram, part float64) float64 {
	for _, b := range h.GetBucket() {
		if float64(b.GetCumulativeCount()) >= part*float64(h.GetSampleCount()) {
			return b.GetUpperBound()
		}
	}
	return math.Inf(1)
}
