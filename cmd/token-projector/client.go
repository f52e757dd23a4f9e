package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/transport"

	"github.com/token-projector/token-projector/projector"
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
	c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	c.Wrap(wrap)
	return c
}

// watchClient lists and watches. HTTP/2, so that all watches share a
// connection, which pings keep honest.
func watchClient(c *rest.Config, wrap func(http.RoundTripper) http.RoundTripper) (*projector.Client, error) {
	return projector.NewClient(common(c, wrap))
}

// mintClient sends TokenRequests, and looks up service accounts. HTTP/1.1, so that a request that times out
// takes its own connection down, and no other request with it.
func mintClient(c *rest.Config, wrap func(http.RoundTripper) http.RoundTripper) (rest.Interface, error) {
	c = common(c, wrap)
	c.NextProtos = []string{"http/1.1"}
	c.WarningHandler = rest.NoWarnings{} // a clamped lifetime is warned of with every single token
	c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return bounded{rt} })
	client, err := projector.NewClient(c)
	if err != nil {
		return nil, err
	}
	return client.Core, nil
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
	client, err := projector.NewClient(c)
	if err != nil {
		return nil, err
	}
	b := record.NewBroadcaster(record.WithContext(ctx))
	b.StartRecordingToSink(eventSink{client.Core})
	// The scheme would tell of which kind an object is; the Projector says it of each.
	return b.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: "token-projector", Host: node}), nil
}

// eventSink writes events, each within the time-out of the client, which is for the core v1 group.
type eventSink struct{ client rest.Interface }

// Create implements record.EventSink, as do Update and Patch.
func (s eventSink) Create(e *corev1.Event) (*corev1.Event, error) {
	return sendEvent(s.client.Post(), e, "", e)
}

// Update writes an event anew.
func (s eventSink) Update(e *corev1.Event) (*corev1.Event, error) {
	return sendEvent(s.client.Put(), e, e.Name, e)
}

// Patch counts an event that has come again.
func (s eventSink) Patch(e *corev1.Event, patch []byte) (*corev1.Event, error) {
	return sendEvent(s.client.Patch(types.StrategicMergePatchType), e, e.Name, patch)
}

// sendEvent has no name for an event that is yet to be.
func sendEvent(r *rest.Request, e *corev1.Event, name string, body any) (*corev1.Event, error) {
	r = r.Namespace(e.Namespace).Resource("events")
	if name != "" {
		r = r.Name(name)
	}
	stored := &corev1.Event{}
	return stored, r.Body(body).Do(context.Background()).Into(stored)
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
