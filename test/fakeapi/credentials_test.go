package fakeapi

import (
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Service account tokens as credentials: which of them, and for how long.
func TestServiceAccountTokens(t *testing.T) {
	t.Parallel()
	clock := newClock(time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC))
	w := newTokenWorld(t, Options{Now: clock.now, APIAudiences: []string{"api", "api2"}})
	good := mustToken(t, w.Server, "default", podTokenRequest(w.pod, "", 600)).Status.Token
	signed := func(s *Server, name string, value any) string {
		t.Helper()
		_, claims := verified(t, w.Server, good)
		claims[name] = value
		token, err := s.signer.sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	end := clock.now().Unix() + 600
	for _, c := range []struct {
		name, token string
		late        time.Duration // after the issue
		good        bool
	}{
		{"at once", good, 0, true},
		{"after its end", good, 660 * time.Second, true},
		{"a minute after its end", good, 660*time.Second + time.Nanosecond, false},
		{"for one of the API's audiences", signed(w.Server, "aud", []string{"x", "api2"}), 0, true},
		{"for another audience", signed(w.Server, "aud", []string{"vault"}), 0, false},
		{"of another issuer", signed(w.Server, "iss", "https://elsewhere"), 0, false},
		{"of another server", signed(start(t, Options{}), "exp", end), 0, false},
		{"not valid yet", signed(w.Server, "nbf", end), 0, false},
		{"no token", "a.b.c", 0, false},
	} {
		w.ForgetRequests()
		clock.add(c.late)
		config := w.RESTConfig()
		config.BearerToken = c.token
		client, err := kubernetes.NewForConfig(config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.CoreV1().Nodes().Get(testContext(t), "node-1", metav1.GetOptions{})
		if c.good && err != nil || !c.good && !apierrors.IsUnauthorized(err) {
			t.Errorf("%s: got %v", c.name, err)
		}
		user := map[bool]string{true: "system:serviceaccount:default:default"}[c.good]
		if got := w.Requests(Match{}); len(got) != 1 || got[0].User != user {
			t.Errorf("%s: recorded %+v", c.name, got)
		}
		clock.add(-c.late)
	}
}
