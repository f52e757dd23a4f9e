package metrics

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Observer holds the collectors of somebody who only reads tokens that others keep fresh. Made by [NewObserver]; never copied.
type Observer struct {
	registry, process *prometheus.Registry
	source            atomic.Pointer[func(time.Time) Observation]
	perToken          bool
	lateness          prometheus.Histogram
}

// Observation is what is on disk at one instant, by the local clock.
type Observation struct {
	// Tokens counts tokens by state, as in Snapshot; pending are volumes without any.
	Tokens map[string]int
	// Unreadable is the number of volumes that could not be read.
	Unreadable int
	// Looked is when all was read last; zero: not yet, and everything else is absent.
	Looked time.Time
	// WatchDegraded tells that some directory is not watched, and only looked at now and then.
	WatchDegraded bool
	// Overdue is by how much the most overdue refresh is late; 0: none is.
	Overdue time.Duration
	// Each is every token, for the metrics of each.
	Each []ObservedToken
}

// ObservedToken is one token. Its texts must be fit for a label.
type ObservedToken struct {
	Namespace, Pod, Volume, Path, Audience string
	Issued, Expires                        time.Time
}

var (
	oldestDesc = desc("oldest_issue_timestamp_seconds",
		"Unix time in seconds at which the oldest of the tokens on disk was issued; absent without tokens.")
	overdueDesc = desc("refresh_overdue_seconds",
		"Seconds by which the most overdue refresh is late now, after 80 % of the lifetime or 24 h; 0: none is.")
	unreadableDesc = desc("unreadable_volumes", "Volumes that could not be read when they were last looked at.")
	lookedDesc     = desc("last_look_timestamp_seconds", "Unix time in seconds at which every volume had been read; 0: not yet.")
	issuedDesc     = desc("token_issued_timestamp_seconds",
		"Unix time in seconds at which this token was issued.", "namespace", "pod", "volume", "path", "audience")
	expiresDesc = desc("token_expiration_timestamp_seconds",
		"Unix time in seconds at which this token expires.", "namespace", "pod", "volume", "path", "audience")
)

// NewObserver makes the collectors, on registries of their own. perToken adds two series for each token.
func NewObserver(version, revision string, perToken bool) *Observer {
	o := &Observer{registry: prometheus.NewRegistry(), process: prometheus.NewRegistry(), perToken: perToken}
	o.lateness = histogram("refresh_lateness_seconds",
		"Seconds by which a refreshed token was issued after the limit of the one before, 80 % of its lifetime or 24 h; 0: in time.",
		latenessBuckets)
	o.registry.MustRegister(o, o.lateness, buildInfo(version, revision))
	registerProcess(o.process)
	return o
}

// Source sets what is asked at every scrape. Scrapes overlap: f is called by many goroutines.
func (o *Observer) Source(f func(now time.Time) Observation) { o.source.Store(&f) }

// RefreshLateness notes that a token was refreshed, so long after its limit.
func (o *Observer) RefreshLateness(d time.Duration) { o.lateness.Observe(seconds(d)) }

// Handler serves all of it, as [Metrics.Handler] does.
func (o *Observer) Handler() http.Handler { return handler(o.registry, o.process) }

// Describe implements prometheus.Collector.
func (o *Observer) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tokensDesc, earliestDesc, oldestDesc, overdueDesc, unreadableDesc, lookedDesc, watchDesc, issuedDesc, expiresDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (o *Observer) Collect(ch chan<- prometheus.Metric) {
	f := o.source.Load()
	if f == nil {
		return
	}
	seen := (*f)(time.Now())
	send := func(d *prometheus.Desc, value float64, labels ...string) { ch <- gaugeOrError(d, value, labels) }
	if seen.Looked.IsZero() {
		send(lookedDesc, 0)
		return
	}
	send(lookedDesc, unixSeconds(seen.Looked))
	for _, state := range tokenStates {
		send(tokensDesc, float64(seen.Tokens[state]), state)
	}
	send(unreadableDesc, float64(seen.Unreadable))
	send(overdueDesc, seconds(seen.Overdue))
	send(watchDesc, boolean(seen.WatchDegraded))
	seen.emitEach(send, o.perToken)
}

// emitEach sends what is of single tokens: the oldest, the first to expire and, if they are wanted, all.
func (seen *Observation) emitEach(send func(*prometheus.Desc, float64, ...string), all bool) {
	var oldest, earliest time.Time
	for _, t := range seen.Each {
		if oldest.IsZero() || t.Issued.Before(oldest) {
			oldest = t.Issued
		}
		if earliest.IsZero() || t.Expires.Before(earliest) {
			earliest = t.Expires
		}
	}
	if len(seen.Each) > 0 {
		send(oldestDesc, unixSeconds(oldest))
		send(earliestDesc, unixSeconds(earliest))
	}
	if all {
		for labels, t := range newest(seen.Each) {
			send(issuedDesc, unixSeconds(t.Issued), labels[:]...)
			send(expiresDesc, unixSeconds(t.Expires), labels[:]...)
		}
	}
}

// newest are the tokens by their labels. A pod that was made again under its name has those of the one before, for as long as
// that one's directory is there.
func newest(tokens []ObservedToken) map[[5]string]ObservedToken {
	by := make(map[[5]string]ObservedToken, len(tokens))
	for _, t := range tokens {
		labels := [5]string{t.Namespace, t.Pod, t.Volume, t.Path, t.Audience}
		if other, ok := by[labels]; !ok || t.Issued.After(other.Issued) {
			by[labels] = t
		}
	}
	return by
}
