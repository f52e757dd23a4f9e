package main

import (
	"net/http"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// TestNoRate: requests in flight are bounded, not their rate; the client's own default of 5/s would delay a full node's
// first tokens by minutes.
func TestNoRate(t *testing.T) {
	same := func(rt http.RoundTripper) http.RoundTripper { return rt }
	config := &rest.Config{Host: "https://127.0.0.1:1"}
	if limited, err := kubernetes.NewForConfig(config); err != nil || limited.CoreV1().RESTClient().GetRateLimiter() == nil {
		t.Fatalf("%v: a rate by default would not be seen", err)
	}
	mint, err := mintClient(config, same)
	if err != nil {
		t.Fatal(err)
	}
	if mint.GetRateLimiter() != nil {
		t.Errorf("TokenRequests are limited to %v/s", mint.GetRateLimiter().QPS())
	}
	watch, err := watchClient(config, same)
	if err != nil {
		t.Fatal(err)
	}
	if l := watch.Core.GetRateLimiter(); l != nil {
		t.Errorf("watches are limited to %v/s", l.QPS())
	}
}
