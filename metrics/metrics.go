package metrics

import (
	"context"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapesInFlight bounds the answers rendered at once, hence the memory that
// eager scrapers can take.
const scrapesInFlight = 4

// Metrics holds every collector. The zero value is not usable, nil is: it
// counts nothing. Made by [New]; never copied.
type Metrics struct {
	registry *prometheus.Registry // ours
	process  *prometheus.Registry // of the Go runtime and the process
	source   atomic.Pointer[snapshotFunc]

	tokenRequests     *prometheus.CounterVec // by code
	tokenRequestTime  prometheus.Histogram
	lastSuccess       prometheus.Gauge
	lastFailure       prometheus.Gauge
	lookups           *prometheus.CounterVec // by code
	lateness          prometheus.Histogram
	firstProjection   prometheus.Histogram
	publishes         *prometheus.CounterVec // by result
	publishTime       prometheus.Histogram
	adopted           prometheus.Counter
	repairs           prometheus.Counter
	clientRequests    *prometheus.CounterVec   // by code, method
	clientRequestTime *prometheus.HistogramVec // by verb
}

// New makes the collectors, on registries of their own. The version and the
// revision are labels of token_projector_build_info; either may be empty.
func New(version, revision string) *Metrics {
	return newMetrics(version, revision, prometheus.NewRegistry(), prometheus.NewRegistry())
}

// newMetrics is New on given registries: tests pass pedantic ones.
func newMetrics(version, revision string, ours, process *prometheus.Registry) *Metrics {
	m := &Metrics{registry: ours, process: process}
	m.makeTokenCollectors()
	m.makeVolumeCollectors()
	m.makeClientCollectors()
	ours.MustRegister(&snapshotCollector{source: &m.source}, buildInfo(version, revision),
		m.tokenRequests, m.tokenRequestTime, m.lastSuccess, m.lastFailure, m.lookups, m.lateness,
		m.firstProjection, m.publishes, m.publishTime, m.adopted, m.repairs,
		m.clientRequests, m.clientRequestTime)
	registerProcess(process)
	return m
}

// registerProcess registers the collectors of the Go runtime and the process.
func registerProcess(process *prometheus.Registry) {
	process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

func (m *Metrics) makeTokenCollectors() {
	m.tokenRequests = counters("token_requests_total",
		"TokenRequests sent, by HTTP status code of the answer; none: no answer (time-out, connection error).",
		"code", tokenRequestCodes...)
	m.tokenRequestTime = histogram("token_request_duration_seconds",
		"Seconds from sending a TokenRequest to its answer or failure.", requestBuckets)
	m.lastSuccess = gauge("last_token_request_success_timestamp_seconds",
		"Local Unix time in seconds of the latest TokenRequest answered with 2xx; 0: none yet.")
	m.lastFailure = gauge("last_token_request_failure_timestamp_seconds",
		"Local Unix time in seconds of the latest TokenRequest that failed or was refused; 0: none yet.")
	m.lookups = counters("service_account_lookups_total",
		"Look-ups of service accounts, to find those made anew, by HTTP status code of the answer; none: no answer.",
		"code", lookupCodes...)
	m.lateness = histogram("refresh_lateness_seconds",
		"Seconds by which a refreshed token was published after its limit of 80 % of the lifetime or 24 h; 0: in time.",
		latenessBuckets)
	m.adopted = counter("adopted_tokens_total",
		"Tokens found on disk after a restart and kept without a TokenRequest.")
}

func (m *Metrics) makeVolumeCollectors() {
	m.firstProjection = histogram("first_projection_duration_seconds",
		"Seconds from first seeing a pod to the first publication of a volume of it.", projectionBuckets)
	m.publishes = counters("publishes_total",
		"Publications of a volume, by result: written, unchanged (already right on disk) or error.",
		"result", "written", "unchanged", "error")
	m.publishTime = histogram("publish_duration_seconds",
		"Seconds that one publication of a volume took on disk, whatever its result.", publishBuckets)
	m.repairs = counter("repairs_total",
		"Volumes that something else had changed on disk and that were put right.")
}

// Snapshot sets what is asked for the gauges of state at every scrape, within
// 2 s, after which its context ends. Set it before serving; until then, and
// after nil, these gauges are absent. When f answers false they are absent from
// that scrape, not stale. Scrapes overlap: f is called by many goroutines.
func (m *Metrics) Snapshot(f func(context.Context) (Snapshot, bool)) {
	if m == nil {
		return
	}
	if f == nil {
		m.source.Store(nil)
		return
	}
	m.source.Store(&f)
}

// Handler serves all of it, the Go runtime and the process included, in the
// text and OpenMetrics formats and, for native histograms, in protobuf. A
// collector that fails is left out and counted in
// promhttp_metric_handler_errors_total; the others are still served. Of a nil
// Metrics it answers 404.
func (m *Metrics) Handler() http.Handler {
	if m == nil {
		return http.NotFoundHandler()
	}
	return handler(m.registry, m.process)
}

// handler serves two registries; what it has to say of itself is in that of the process.
func handler(ours, process *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{ours, process}, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		Registry:            process,
		MaxRequestsInFlight: scrapesInFlight,
		EnableOpenMetrics:   true,
	})
}

// Registry is the registry of our own collectors, for an embedding program
// that gathers it with its own. The collectors of the Go runtime and the
// process are not in it: such a program has them already. Nil of a nil Metrics.
func (m *Metrics) Registry() *prometheus.Registry {
	if m == nil {
		return nil
	}
	return m.registry
}

// TokenRequest counts one finished TokenRequest: the HTTP status of its answer
// in decimal, or "none" when there was no answer; how long it took; and the
// local time of its end. A 2xx is a success, anything else a failure.
func (m *Metrics) TokenRequest(code string, d time.Duration, now time.Time) {
	if m == nil {
		return
	}
	m.tokenRequests.WithLabelValues(statusLabel(code)).Inc()
	m.tokenRequestTime.Observe(seconds(d))
	latest := m.lastFailure
	if statusLabel(code)[0] == '2' {
		latest = m.lastSuccess
	}
	latest.Set(unixSeconds(now))
}

// AccountLookup counts one look-up of a service account by the HTTP status of its
// answer in decimal, or "none" when there was no answer.
func (m *Metrics) AccountLookup(code string) {
	if m != nil {
		m.lookups.WithLabelValues(statusLabel(code)).Inc()
	}
}

// RefreshLateness observes how long after min(80 % of its lifetime, 24 h) a
// refreshed token was published; earlier than that is 0.
func (m *Metrics) RefreshLateness(d time.Duration) {
	if m != nil {
		m.lateness.Observe(seconds(d))
	}
}

// FirstProjection observes the time from first seeing a pod to the first
// publication of a volume of it.
func (m *Metrics) FirstProjection(d time.Duration) {
	if m != nil {
		m.firstProjection.Observe(seconds(d))
	}
}

// Publish counts one publication: its result is written, unchanged or error,
// and d is the time it took on disk.
func (m *Metrics) Publish(result string, d time.Duration) {
	if m == nil {
		return
	}
	m.publishes.WithLabelValues(result).Inc()
	m.publishTime.Observe(seconds(d))
}

// Adopted counts n tokens kept from disk after a restart; n below 1 is nothing.
func (m *Metrics) Adopted(n int) {
	if m != nil && n > 0 {
		m.adopted.Add(float64(n))
	}
}

// Repaired counts one volume that something else had changed and that was put
// right.
func (m *Metrics) Repaired() {
	if m != nil {
		m.repairs.Inc()
	}
}

func buildInfo(version, revision string) prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info",
		Help: "Always 1; the version and revision of the program and the Go that built it.",
		ConstLabels: prometheus.Labels{
			"version": version, "revision": revision, "goversion": runtime.Version(),
		},
	})
	info.Set(1)
	return info
}
