// Package controlplane starts a real Kubernetes control plane on loopback: etcd, kube-apiserver and
// kube-controller-manager, built from their Go modules at the versions in go.mod.
//
//   - Nothing is downloaded but Go modules, and nothing is needed on the machine but Go.
//   - The certificate authority, every certificate and the service account signing key are made at each start and are gone
//     with it.
//   - The Node and RBAC authorizers, NodeRestriction and the default admission plugins are on.
//   - Every request is in the audit log before it is handled, so a request whose answer was seen has been counted.
//   - The controller manager runs what pods need before a kubelet sees them: service accounts, their tokens,
//     kube-root-ca.crt, and the end of namespaces. No controller makes pods.
//   - Start either returns a control plane that answers, or an error with the last lines of the logs.
//   - Stop ends every process and removes every file. Should the caller be killed, the kernel ends the processes.
package controlplane
