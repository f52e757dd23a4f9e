package metrics

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientgo "k8s.io/client-go/tools/metrics"
)

func (m *Metrics) makeClientCollectors() {
	m.clientRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rest_client_requests_total",
		Help: "Requests to the Kubernetes API, by HTTP status code of the answer (<error>: no answer) and HTTP method.",
	}, []string{"code", "method"})
	m.clientRequestTime = prometheus.NewHistogramVec(histogramOpts("", "rest_client_request_duration_seconds",
		"Seconds that requests to the Kubernetes API took, by HTTP method; watches are not in it.", requestBuckets),
		[]string{"verb"})
}

// ObserveClientGo makes client-go count the requests of all its clients here:
// rest_client_requests_total and rest_client_request_duration_seconds. The
// hooks of client-go belong to the whole process and can be taken once, so
// only a program's main may decide it, before its first client exists: [New]
// does not. It reports whether this Metrics has them; if not, somebody was
// first, and the two families stay empty. Of a nil Metrics it is false.
func (m *Metrics) ObserveClientGo() bool {
	if m == nil {
		return false
	}
	results := requestResults{m.clientRequests}
	clientgo.Register(clientgo.RegisterOpts{
		RequestResult:  results,
		RequestLatency: requestLatency{m.clientRequestTime},
	})
	return clientgo.RequestResult == clientgo.ResultMetric(results)
}

// requestResults drops the host: one daemon talks to one server, and a list
// of addresses behind a name is not bounded.
type requestResults struct{ requests *prometheus.CounterVec }

// Increment implements client-go's ResultMetric.
func (r requestResults) Increment(_ context.Context, code, method, _ string) {
	r.requests.WithLabelValues(code, method).Inc()
}

// requestLatency drops the URL: it names pods and service accounts.
type requestLatency struct{ time *prometheus.HistogramVec }

// Observe implements client-go's LatencyMetric.
func (l requestLatency) Observe(_ context.Context, verb string, _ url.URL, latency time.Duration) {
	l.time.WithLabelValues(verb).Observe(seconds(latency))
}
