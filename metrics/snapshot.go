package metrics

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// snapshotTimeout bounds how long a scrape waits for the owner of the state.
const snapshotTimeout = 2 * time.Second

// Snapshot is the state at one instant, computed by its owner at scrape. The
// owner must not touch its maps afterwards.
type Snapshot struct {
	// Tokens counts tokens by state: fresh, stale, expired, pending. All four
	// are always exposed, 0 when absent here.
	Tokens map[string]int
	// Volumes counts volumes by state: ready, pending, failed, detached. All
	// four are always exposed, 0 when absent here.
	Volumes map[string]int
	// VolumeErrors counts volumes in error now, by reason: one of a few fixed
	// words, never an error's text.
	VolumeErrors map[string]int
	// EarliestExpiration is the soonest expiry of a token on disk, in server
	// time. Zero: there is no token, and the series is absent.
	EarliestExpiration time.Time
	// ClockSkew is the local clock minus the server's.
	ClockSkew time.Duration
	// SkewKnown tells that the server has spoken; else the skew is absent.
	SkewKnown bool
	// QueueLength is the number of entries that wait for their due time.
	QueueLength int
	// LockHeld tells that this process holds the root's lock; a standby does not.
	LockHeld bool
	// RootFailed tells that it does not because the root was lost, and cannot be opened or made anew.
	RootFailed bool
	// WatchDegraded tells that some volume is watched by the slow sweep alone.
	WatchDegraded bool
}

// snapshotFunc asks the owner for the state, before the context ends; false is
// no answer.
type snapshotFunc = func(context.Context) (Snapshot, bool)

// The gauges of state: constants, but for the language.
var (
	tokenStates  = []string{"fresh", "stale", "expired", "pending"}
	volumeStates = []string{"ready", "pending", "failed", "detached"}

	tokensDesc = desc("tokens",
		"Tokens by state: fresh, stale (its refresh is overdue, or its service account was made anew), expired (on disk, past its expiry) or pending (none on disk yet).",
		"state")
	volumesDesc = desc("volumes",
		"Volumes by state: ready, pending (never published), failed (a source fails now) or detached (containers hold a directory that was deleted).",
		"state")
	volumeErrorsDesc = desc("volume_errors", "Volumes in error now, by reason.", "reason")
	earliestDesc     = desc("earliest_expiration_timestamp_seconds",
		"Unix time in seconds, by the server's clock, at which the first of the tokens on disk expires; absent without tokens.")
	skewDesc = desc("clock_skew_seconds",
		"Local clock minus the server's, in seconds; absent until the server has answered.")
	queueDesc = desc("queue_length", "Entries of the queue: what waits for its next refresh or retry.")
	lockDesc  = desc("root_lock_held",
		"1 if this process holds the lock of the root directory, 0 if it waits for it as a standby, or lost the root.")
	rootDesc = desc("root_failed",
		"1 if the root directory was lost and can be neither opened nor made anew, else 0.")
	watchDesc = desc("watch_degraded",
		"1 if some volume is not watched for changes on disk (out of inotify watches) and only swept now and then, else 0.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// snapshotCollector asks at every scrape; it keeps nothing.
type snapshotCollector struct {
	source *atomic.Pointer[snapshotFunc]
}

// Describe implements prometheus.Collector.
func (c *snapshotCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tokensDesc, volumesDesc, volumeErrorsDesc, earliestDesc,
		skewDesc, queueDesc, lockDesc, rootDesc, watchDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *snapshotCollector) Collect(ch chan<- prometheus.Metric) {
	f := c.source.Load()
	if f == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTimeout)
	defer cancel()
	if s, ok := (*f)(ctx); ok {
		s.emit(func(d *prometheus.Desc, value float64, labels ...string) {
			ch <- gaugeOrError(d, value, labels)
		})
	}
}

func (s Snapshot) emit(send func(d *prometheus.Desc, value float64, labels ...string)) {
	for _, state := range tokenStates {
		send(tokensDesc, float64(s.Tokens[state]), state)
	}
	for _, state := range volumeStates {
		send(volumesDesc, float64(s.Volumes[state]), state)
	}
	for reason, n := range s.VolumeErrors {
		send(volumeErrorsDesc, float64(n), reason)
	}
	if !s.EarliestExpiration.IsZero() {
		send(earliestDesc, unixSeconds(s.EarliestExpiration))
	}
	if s.SkewKnown {
		send(skewDesc, s.ClockSkew.Seconds())
	}
	send(queueDesc, float64(s.QueueLength))
	send(lockDesc, boolean(s.LockHeld))
	send(rootDesc, boolean(s.RootFailed))
	send(watchDesc, boolean(s.WatchDegraded))
}

// gaugeOrError reports a label that cannot be exposed (not UTF-8) as an error
// of this scrape instead of a panic of the daemon.
func gaugeOrError(d *prometheus.Desc, value float64, labels []string) prometheus.Metric {
	metric, err := prometheus.NewConstMetric(d, prometheus.GaugeValue, value, labels...)
	if err != nil {
		return prometheus.NewInvalidMetric(d, err)
	}
	return metric
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
