package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

func TestPercentile(t *testing.T) {
	t.Parallel()
	var sorted []time.Duration
	for i := range 101 {
		sorted = append(sorted, time.Duration(i)*time.Second)
	}
	for part, want := range map[float64]time.Duration{0: 0, 0.5: 50 * time.Second, 0.99: 99 * time.Second, 1: 100 * time.Second} {
		if got := percentile(sorted, part); got != want {
			t.Errorf("%v: got %v, want %v", part, got, want)
		}
	}
	if got := percentile(nil, 0.5); got != 0 {
		t.Errorf("of none: %v", got)
	}
	if got := seconds(sorted[:2], 0, 1); got != "0.000, 1.000" {
		t.Errorf("printed: %q", got)
	}
}

// TestMetric: what the daemon says of a late token is told, wherever its bucket is.
func TestMetric(t *testing.T) {
	t.Parallel()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	f, err := parser.TextToMetricFamilies(bytes.NewBufferString(`# TYPE token_projector_refresh_lateness_seconds histogram
token_projector_refresh_lateness_seconds_bucket{le="0.01"} 90
token_projector_refresh_lateness_seconds_bucket{le="0.25"} 99
token_projector_refresh_lateness_seconds_bucket{le="120"} 100
token_projector_refresh_lateness_seconds_bucket{le="+Inf"} 101
token_projector_refresh_lateness_seconds_count 101
# TYPE token_projector_token_requests_total counter
token_projector_token_requests_total{code="201"} 7
token_projector_token_requests_total{code="429"} 3
`))
	if err != nil {
		t.Fatal(err)
	}
	h := families(f).histogram("refresh_lateness_seconds")
	for part, want := range map[float64]float64{0.5: 0.01, 0.98: 0.25, 0.99: 120} {
		if got := atMost(h, part); got != want {
			t.Errorf("%v of it: at most %v s, want %v", part, got, want)
		}
	}
	if got := families(f).sum("token_requests_total", ""); got != 10 {
		t.Errorf("%v requests, want 10", got)
	}
	if got := families(f).sum("token_requests_total", "429"); got != 3 {
		t.Errorf("%v requests were refused, want 3", got)
	}
	if got := families(f).by("token_requests_total"); got["201"] != 7 || got["429"] != 3 || len(got) != 2 {
		t.Errorf("by code: %v", got)
	}
	if h := families(f).histogram("nothing"); h.GetSampleCount() != 0 {
		t.Error("a metric that is not there has observations")
	}
}
