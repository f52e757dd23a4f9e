// Package conformance holds no code: its tests drive the real daemon, built by the Dockerfile's command, against a real
// control plane (package controlplane), and apply deploy/ to it.
//
//   - With a node's client certificate: thirty pods, their tokens in the eyes of the API server and of a client in the pod,
//     a restart, deletions.
//   - In the cluster: the DaemonSet as it is in deploy/, in a sandbox like a container's, with a token bound to its pod.
//   - A run that cannot start fails. Nothing is ever skipped.
package conformance
