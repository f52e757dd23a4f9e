package metrics

import (
	"context"
	"flag"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

func pedantic() *Metrics {
	return newMetrics("v1.2.3", "abc123", prometheus.NewPedanticRegistry(), prometheus.NewPedanticRegistry())
}

// scrape is the text exposition, as a Prometheus without protobuf gets it.
func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rec.Code != http.StatusOK {
		t.Fatalf("scrape: status %d: %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

// series is the sample lines of an exposition by name and labels.
func series(exposition string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(exposition) {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			found[line[:i]] = strings.TrimSpace(line[i+1:])
		}
	}
	return found
}

// ours leaves out what differs from machine to machine.
func ours(exposition string) string {
	var b strings.Builder
	for line := range strings.Lines(exposition) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if strings.HasPrefix(name, "token_projector_") || strings.HasPrefix(name, "rest_client_") {
			b.WriteString(strings.ReplaceAll(line, runtime.Version(), "GOVERSION"))
		}
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("exposition differs from %s (-want +got):\n%s", file, d)
	}
}

// exercise uses every method with values that land in known buckets.
func exercise(m *Metrics) {
	at := time.Unix(1_800_000_000, 250_000_000)
	m.Snapshot(func(context.Context) (Snapshot, bool) {
		return Snapshot{
			Tokens:             map[string]int{"fresh": 7, "stale": 1},
			Volumes:            map[string]int{"ready": 5, "failed": 2},
			VolumeErrors:       map[string]int{"configmap_missing": 2},
			EarliestExpiration: at.Add(time.Hour),
			ClockSkew:          -1500 * time.Millisecond,
			SkewKnown:          true,
			QueueLength:        7,
			LockHeld:           true,
		}, true
	})
	m.TokenRequest("201", 4*time.Millisecond, at)
	m.TokenRequest("503", 40*time.Millisecond, at.Add(time.Second))
	m.TokenRequest("none", 10*time.Second, at.Add(2*time.Second))
	m.AccountLookup("200")
	m.AccountLookup("403")
	m.AccountLookup("a host, perhaps")
	m.RefreshLateness(70 * time.Millisecond)
	m.FirstProjection(300 * time.Millisecond)
	m.Publish("written", 120*time.Microsecond)
	m.Publish("unchanged", 60*time.Microsecond)
	m.Publish("error", 2*time.Millisecond)
	m.Adopted(3)
	m.Repaired()
	requestResults{m.clientRequests}.Increment(context.Background(), "200", "GET", "10.0.0.1:443")
}

func TestExposition(t *testing.T) {
	t.Run("fresh", func(t *testing.T) { golden(t, "fresh.golden", ours(scrape(t, pedantic()))) })
	t.Run("used", func(t *testing.T) {
		m := pedantic()
		exercise(m)
		golden(t, "used.golden", ours(scrape(t, m)))
	})
}

func TestGoAndProcessMetricsAreServedButNotInTheRegistry(t *testing.T) {
	m := pedantic()
	names := []string{"go_goroutines", "process_open_fds", "promhttp_metric_handler_errors_total"}
	text := scrape(t, m)
	for _, name := range names {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("%s is not served", name)
		}
	}
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) < 10 {
		t.Fatalf("only %d families in the registry", len(families))
	}
	for _, f := range families {
		if slices.ContainsFunc(names, func(n string) bool { return f.GetName() == n }) {
			t.Errorf("%s would clash with the registry of an embedding program", f.GetName())
		}
	}
}

func TestLint(t *testing.T) {
	bad := strings.NewReader("# HELP x_total_seconds_milliseconds x\n# TYPE x_total_seconds_milliseconds counter\nx_total_seconds_milliseconds 1\n")
	if found, err := promlint.New(bad).Lint(); err != nil || len(found) == 0 {
		t.Fatalf("a planted bad name passes the linter (%v)", err)
	}
	m := pedantic()
	exercise(m)
	requestLatency{m.clientRequestTime}.Observe(context.Background(), "GET", podURL(t), time.Second)
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestEveryHelpSaysItsUnit(t *testing.T) {
	m := pedantic()
	exercise(m)
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasSuffix(f.GetName(), "_seconds") != strings.Contains(strings.ToLower(f.GetHelp()), "seconds") {
			t.Errorf("%s: name and help disagree about seconds: %q", f.GetName(), f.GetHelp())
		}
	}
}

// stateGauges are the names that come from a Snapshot.
var stateGauges = regexp.MustCompile(`(?m)^token_projector_(tokens|volumes|volume_errors|earliest_\w+|clock_skew_seconds|queue_length|root_\w+|watch_degraded)\b.*$`)

func TestStateIsAbsentRatherThanStale(t *testing.T) {
	m := pedantic()
	if got := stateGauges.FindAllString(scrape(t, m), -1); got != nil {
		t.Errorf("without a source: %q", got)
	}
	answers := true
	m.Snapshot(func(context.Context) (Snapshot, bool) { return Snapshot{QueueLength: 3}, answers })
	if got := series(scrape(t, m))["token_projector_queue_length"]; got != "3" {
		t.Errorf("queue_length %q, want 3", got)
	}
	answers = false
	if got := stateGauges.FindAllString(scrape(t, m), -1); got != nil {
		t.Errorf("the owner did not answer: %q", got)
	}
	m.Snapshot(nil)
	if got := stateGauges.FindAllString(scrape(t, m), -1); got != nil {
		t.Errorf("source taken away: %q", got)
	}
}

func TestSnapshotUnknownsAreAbsent(t *testing.T) {
	m := pedantic()
	var s Snapshot
	m.Snapshot(func(context.Context) (Snapshot, bool) { return s, true })
	const skew, earliest = "token_projector_clock_skew_seconds", "token_projector_earliest_expiration_timestamp_seconds"
	got := series(scrape(t, m))
	for _, name := range []string{skew, earliest} {
		if value, ok := got[name]; ok {
			t.Errorf("%s is %s, want absent", name, value)
		}
	}
	for _, state := range []string{"fresh", "stale", "expired", "pending"} {
		if value := got[`token_projector_tokens{state="`+state+`"}`]; value != "0" {
			t.Errorf("tokens %s: %q, want 0", state, value)
		}
	}
	s = Snapshot{SkewKnown: true, EarliestExpiration: time.Unix(12, 0), WatchDegraded: true, LockHeld: true, RootFailed: true}
	got = series(scrape(t, m))
	for name, want := range map[string]string{
		skew: "0", earliest: "12", "token_projector_watch_degraded": "1", "token_projector_root_lock_held": "1",
		"token_projector_root_failed": "1",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %s", name, got[name], want)
		}
	}
}

func TestHungOwnerBoundsTheScrape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := pedantic()
		m.Snapshot(func(ctx context.Context) (Snapshot, bool) {
			<-ctx.Done()
			return Snapshot{}, false
		})
		begun := time.Now()
		text := scrape(t, m)
		if took := time.Since(begun); took != 2*time.Second {
			t.Errorf("the scrape took %v, want 2s", took)
		}
		if got := stateGauges.FindAllString(text, -1); got != nil {
			t.Errorf("gauges of a hung owner: %q", got)
		}
		if !strings.Contains(text, "token_projector_build_info{") {
			t.Error("a hung owner hides what does not need it")
		}
	})
}

func TestBrokenReasonSpoilsOnlyItself(t *testing.T) {
	m := pedantic()
	m.Snapshot(func(context.Context) (Snapshot, bool) {
		return Snapshot{QueueLength: 4, VolumeErrors: map[string]int{"\xff": 1}}, true
	})
	got := series(scrape(t, m))
	if got["token_projector_queue_length"] != "4" {
		t.Errorf("queue_length %q, want 4", got["token_projector_queue_length"])
	}
	// Counted after the scrape that met it, hence seen by the next one at the latest.
	if n := series(scrape(t, m))[`promhttp_metric_handler_errors_total{cause="gathering"}`]; count(t, n) < 1 {
		t.Errorf("errors of the handler: %q, want at least 1", n)
	}
}

func TestTokenRequest(t *testing.T) {
	const success, failure = "token_projector_last_token_request_success_timestamp_seconds", "token_projector_last_token_request_failure_timestamp_seconds"
	at := time.Unix(1000, 500_000_000)
	for _, c := range []struct{ code, label, want string }{
		{"201", "201", success}, {"200", "200", success}, {"299", "299", success},
		{"403", "403", failure}, {"500", "500", failure}, {"302", "302", failure},
		{"none", "none", failure}, {"", "none", failure}, {"20", "none", failure}, {"2xx", "none", failure},
		{"0200", "none", failure}, {"2010", "none", failure}, {"999", "none", failure}, {"a secret", "none", failure},
	} {
		m := pedantic()
		m.TokenRequest(c.code, time.Second, at)
		got := series(scrape(t, m))
		for _, name := range []string{success, failure} {
			want := "0"
			if name == c.want {
				want = "1000.5"
			}
			if got[name] != want {
				t.Errorf("code %q: %s is %s, want %s", c.code, name, got[name], want)
			}
		}
		if n := got[`token_projector_token_requests_total{code="`+c.label+`"}`]; n != "1" {
			t.Errorf("code %q: counted %q times as %s", c.code, n, c.label)
		}
		if n := got["token_projector_token_request_duration_seconds_sum"]; n != "1" {
			t.Errorf("code %q: duration sum %q", c.code, n)
		}
	}
}

func TestNegativeIsZero(t *testing.T) {
	m := pedantic()
	m.RefreshLateness(-time.Minute)
	m.FirstProjection(-time.Minute)
	m.Publish("written", -time.Minute)
	m.TokenRequest("201", -time.Minute, time.Unix(1, 0))
	m.Adopted(-5)
	m.Adopted(0)
	got := series(scrape(t, m))
	for _, name := range []string{"refresh_lateness", "first_projection_duration", "publish_duration", "token_request_duration"} {
		if sum, n := got["token_projector_"+name+"_seconds_sum"], got["token_projector_"+name+"_seconds_count"]; sum != "0" || n != "1" {
			t.Errorf("%s: sum %s of %s observations, want 0 of 1", name, sum, n)
		}
	}
	if n := got["token_projector_adopted_tokens_total"]; n != "0" {
		t.Errorf("adopted %s", n)
	}
}

func TestNilMetrics(t *testing.T) {
	var m *Metrics
	m.Snapshot(func(context.Context) (Snapshot, bool) { return Snapshot{}, true })
	m.TokenRequest("201", time.Second, time.Now())
	m.RefreshLateness(time.Second)
	m.FirstProjection(time.Second)
	m.Publish("written", time.Second)
	m.Adopted(1)
	m.Repaired()
	if m.Registry() != nil || m.ObserveClientGo() {
		t.Error("a nil Metrics has something")
	}
	rec := httptest.NewRecorder()
	m.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if rec.Code != http.StatusNotFound {
		t.Errorf("handler of a nil Metrics: %d", rec.Code)
	}
}

func TestNativeHistogramsAreKept(t *testing.T) {
	m := pedantic()
	exercise(m)
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	native := map[string]bool{}
	for _, f := range families {
		if h := f.GetMetric()[0].GetHistogram(); h != nil {
			native[f.GetName()] = h.Schema != nil && len(h.GetPositiveDelta()) > 0 && len(h.GetBucket()) > 10
		}
	}
	want := map[string]bool{
		"token_projector_token_request_duration_seconds":    true,
		"token_projector_refresh_lateness_seconds":          true,
		"token_projector_first_projection_duration_seconds": true,
		"token_projector_publish_duration_seconds":          true,
	}
	if !maps.Equal(native, want) {
		t.Error(cmp.Diff(want, native))
	}
}

// All methods at once, for the race detector, and two Metrics side by side.
func TestConcurrentUse(t *testing.T) {
	m, other := pedantic(), pedantic()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				exercise(m)
				_ = scrape(t, m)
			}
		})
	}
	wg.Wait()
	if n := series(scrape(t, m))["token_projector_repairs_total"]; n != "160" {
		t.Errorf("%s repairs, want 160", n)
	}
	if n := series(scrape(t, other))["token_projector_repairs_total"]; n != "0" {
		t.Errorf("%s repairs of the other, want 0", n)
	}
}
