// Package cases says what a Kubernetes API server does for a client that projects ServiceAccount tokens: one list of
// requests and answers, taken from Kubernetes 1.37. `make test` runs it on test/fakeapi, `make conformance` on that and
// on the real kube-apiserver and kube-controller-manager beside it. A case that passes on one alone is a bug of the fake,
// unless the case says why it is so on purpose.
//
// A case gets a World: a server, and a namespace of its own on it. It says what is wrong by Errorf and Fatalf, runs beside
// the other cases, and leaves behind nothing that another would see: cluster-wide objects have names of its own.
package cases
