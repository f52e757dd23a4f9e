package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/transport"
)

const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 10 * time.Second // of a TokenRequest, or the look-up of a service account
	maxAnswer      = 1 << 20          // bytes of an answer to either

	// certificateEvery is how often the files of a client certificate are read: a new
	// one closes the connections that were opened with the old one. An open
	// connection keeps its certificate, so that without this one which is no longer
	// accepted would be used for the five minutes of client-go's own.
	certificateEvery = 2 * time.Second
)

// No transport is there yet that reads it.
func init() { transport.CertCallbackRefreshDuration = certificateEvery }

// common sets what both clients share.
func common(c *rest.Config, wrap func(http.RoundTripper) http.RoundTripper) *rest.Config {
	c = rest.CopyConfig(c)
	c.UserAgent = "token-projector/" + version
	c.QPS = -1 // requests in flight are bounded instead of their rate
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	c.Wrap(wrap)
	return c
}

// watchClient lists and watches. HTTP/2, so that all watches share a
// connection, which pings keep honest.
func watchClient(c *rest.Config, wrap func(http.RoundTripper) http.RoundTripper) (kubernetes.Interface, error) {
	return kubernetes.NewForConfig(common(c, wrap))
}

// mintClient sends TokenRequests, and looks up service accounts. HTTP/1.1, so that a request that times out
// takes its own connection down, and no other request with it.
func mintClient(c *rest.Config, wrap func(http.RoundTripper) http.RoundTripper) (rest.Interface, error) {
	c = common(c, wrap)
	c.NextProtos = []string{"http/1.1"}
	c.WarningHandler = rest.NoWarnings{} // a clamped lifetime is warned of with every single token
	c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return bounded{rt} })
	set, err := kubernetes.NewForConfig(c)
	if err != nil {
		return nil, err
	}
	return set.CoreV1().RESTClient(), nil
}

// eventsPerSecond bounds the events of the whole node, with bursts: a fleet that
// cannot get its tokens must not drown the API server in complaints about it.
// What one pod may have is the recorder's own limit: 25 at once, then one in
// five minutes.
const (
	eventsPerSecond = 2
	eventBurst      = 50
)

// eventRecorder records events on pods, until ctx ends.
func eventRecorder(ctx context.Context, c *rest.Config, node string, wrap func(http.RoundTripper) http.RoundTripper) (record.EventRecorder, error) {
	c = common(c, wrap)
	c.QPS, c.Burst, c.Timeout = eventsPerSecond, eventBurst, requestTimeout
	client, err := corev1client.NewForConfig(c)
	if err != nil {
		return nil, err
	}
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: client.Events("")})
	return b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "token-projector", Host: node}), nil
}

// bounded refuses to read answers without end.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("answer is longer than %d bytes", maxAnswer)
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
