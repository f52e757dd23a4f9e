package metrics

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func podURL(t *testing.T) url.URL {
	t.Helper()
	u, err := url.Parse("https://192.0.2.1/api/v1/namespaces/ns-in-path/pods/pod-in-path")
	if err != nil {
		t.Fatal(err)
	}
	return *u
}

// observing is the one Metrics of this test process that client-go reports to.
var observing = sync.OnceValues(func() (*Metrics, bool) {
	m := pedantic()
	return m, m.ObserveClientGo()
})

func TestClientGoIsObserved(t *testing.T) {
	m, ok := observing()
	if !ok {
		t.Fatal("the hooks of client-go belong to somebody else")
	}
	if !m.ObserveClientGo() {
		t.Error("asked twice, the owner of the hooks loses them")
	}
	late := pedantic()
	if late.ObserveClientGo() {
		t.Error("a second Metrics believes to have the hooks")
	}
	before := series(scrape(t, m))
	get(t, "ns-in-path", "pod-in-path")
	text := scrape(t, m)
	after := series(text)
	for _, name := range []string{
		`rest_client_requests_total{code="404",method="GET"}`,
		`rest_client_request_duration_seconds_count{verb="GET"}`,
	} {
		if n := count(t, after[name]) - count(t, before[name]); n != 1 {
			t.Errorf("%s grew by %v, want 1", name, n)
		}
	}
	for _, leak := range []string{"in-path", "127.0.0.1", "bearer-in-header"} {
		if strings.Contains(text, leak) {
			t.Errorf("%q is in the exposition", leak)
		}
	}
	if strings.Contains(scrape(t, late), "rest_client_requests_total{") {
		t.Error("requests are counted by a Metrics without the hooks")
	}
}

// get asks an API server that has nothing for one pod.
func get(t *testing.T, namespace, name string) {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, BearerToken: "bearer-in-header"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods(namespace).Get(context.Background(), name, metav1.GetOptions{}); err == nil {
		t.Fatal("a pod from nowhere")
	}
}

// count reads a sample; a series that is not there yet counts as 0.
func count(t *testing.T, value string) float64 {
	t.Helper()
	if value == "" {
		return 0
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
