// Package prometheus holds the alerts, the dashboard and the metrics to what a real Prometheus makes of them. What needs its programs,
// promtool and prometheus, is behind the build tag prometheus.
package prometheus
