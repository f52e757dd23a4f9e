package metrics

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// namespace is the prefix of every name of ours.
const namespace = "token_projector"

// noAnswer is the code of a request that got no HTTP answer.
const noAnswer = "none"

// unusable is the code of a request that was granted, but whose answer held no
// token that could be published.
const unusable = "unusable"

// tokenRequestCodes exist at 0 from the start, so that rate() sees the first
// of each: what an API server answers to a TokenRequest.
var tokenRequestCodes = []string{
	"201", "400", "401", "403", "404", "409", "422", "429", "500", "502", "503", "504", noAnswer, unusable,
}

// lookupCodes are what it answers to the look-up of a service account.
var lookupCodes = []string{"200", "401", "403", "404", "429", "500", "502", "503", "504", noAnswer, unusable}

// Bucket bounds in seconds, each over the range where a decision is made.
var (
	// 1 ms to 10 s: a request is given up after 10 s.
	requestBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	// 10 ms to 5 min: the kubelet, driven by its pod resync, is up to 91 s late.
	latenessBuckets = []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	// 5 ms to 2 min: a pod start waits for this; the kubelet gives up at 2m3s.
	projectionBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120}
	// 50 µs to 1 s: memory takes about 0.1 ms, a synced disk tens of ms.
	publishBuckets = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}
)

// histogram has fixed buckets for every scraper and a native (exponential)
// histogram for those that ask for it, bounded to 100 buckets.
func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(histogramOpts(namespace, name, help, buckets))
}

func histogramOpts(prefix, name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Namespace: prefix, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  100,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

// counters is a counter by one label, at 0 for each of the known values.
func counters(name, help, label string, known ...string) *prometheus.CounterVec {
	vec := prometheus.NewCounterVec(
		prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
	for _, value := range known {
		vec.WithLabelValues(value)
	}
	return vec
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
}

// statusLabel lets HTTP status codes and unusable through; all else is
// noAnswer, so that no text of an answer can become a label.
func statusLabel(code string) string {
	if code == unusable {
		return unusable
	}
	if len(code) != 3 || code[0] < '1' || code[0] > '5' || !isDigit(code[1]) || !isDigit(code[2]) {
		return noAnswer
	}
	return code
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// seconds clamps at 0: a clock that leapt back must not make a negative
// observation, which would falsify the sum.
func seconds(d time.Duration) float64 { return math.Max(0, d.Seconds()) }

// unixSeconds is to the millisecond: a float64 has room for more, but prints
// it as a long tail of noise.
func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }
