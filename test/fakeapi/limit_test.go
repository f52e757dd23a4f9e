package fakeapi

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A pressed server grants what it can, tells the rest when to come again, and limits nothing else.
func TestLimitTokenRequests(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{})
	client := clientset(t, w.Server)
	if _, err := mint(testContext(t), client, w.pod); err != nil {
		t.Fatal(err)
	}
	defer w.Inject(LimitTokenRequests(1))()
	granted, refused := 0, 0
	for refused == 0 && granted < 1000 { // the machine may be slow, and then all are granted for a while
		_, err := mint(testContext(t), client, w.pod)
		after, suggested := apierrors.SuggestsClientDelay(err)
		switch {
		case err == nil:
			granted++
		case apierrors.IsTooManyRequests(err) && suggested && after == 1:
			refused++
		default:
			t.Fatalf("got %v, want a token, or 429 with Retry-After: 1", err)
		}
	}
	if granted == 0 || refused == 0 {
		t.Errorf("%d were granted and %d refused; want some of both", granted, refused)
	}
	if code := do(t, w.Server, "GET", "/api/v1/namespaces/default/serviceaccounts/default", nil).code; code != 200 {
		t.Errorf("another request: %d", code)
	}
}
