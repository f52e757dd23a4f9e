package clients

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// serverClock is the API server's: ahead of the local one by a growing difference.
type serverClock struct{ ahead atomic.Int64 }

func (c *serverClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// sent is one request as it left a client.
type sent struct {
	token string
	at    time.Time // by the server's clock
}

// wiretap sees what goes out of a client, with its credential. The client must send one request at a time.
type wiretap struct {
	base http.RoundTripper
	now  func() time.Time
	sent []sent
}

func (w *wiretap) RoundTrip(r *http.Request) (*http.Response, error) {
	w.sent = append(w.sent, sent{strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), w.now()})
	return w.base.RoundTrip(r)
}

// tokens are the different ones that were sent, in order.
func (w *wiretap) tokens() []string {
	var all []string
	for _, s := range w.sent {
		if !slices.Contains(all, s.token) {
			all = append(all, s.token)
		}
	}
	return all
}

// bad counts the requests that carried no token, or one that was past its end.
func (w *wiretap) bad() int {
	n := 0
	for _, s := range w.sent {
		if c, err := projector.ParseClaims([]byte(s.token)); err != nil || c.Lifetime.Expired(s.at) {
			n++
		}
	}
	return n
}

// TestClientGo: stock clients with BearerTokenFile.
//
// Such a client keeps a token for 50 s before it looks at the file again, even after a 401: it gives what it reads a
// minute and renews it ten seconds early (k8s.io/client-go/transport/token_source.go). With a token of seconds it would
// thus send expired ones for most of a minute, which the server's leeway of a minute hides. A token that was renewed at
// 80 % of its life and read just before is good for those 50 s if it lives 250 s or more, and no pod can ask for less
// than 600 s: that is what is tested here. Instead of waiting eight minutes for a renewal, the server's clock is put
// forward; the 50 s are waited for, by two clients side by side.
func TestClientGo(t *testing.T) {
	t.Parallel()
	var clock serverClock
	w := newWorld(t, fakeapi.Options{Now: clock.now}, "")
	w.pace()
	advance := func(d time.Duration) {
		before := w.read()
		clock.ahead.Add(int64(d))
		w.api.CutWatches() // the daemon learns the time from the next answers
		w.waitRenewed(before)
	}

	// Server and wiretap know an expired token: time leaps over the end of the one in a client's hands.
	late := w.newClient(clock.now)
	advance((expiration + 61) * time.Second)
	if err := late.ask(w); !apierrors.IsUnauthorized(err) || late.bad() != 1 {
		t.Fatalf("an expired token: %v, and %d of %d requests seen as bad", err, late.bad(), len(late.sent))
	}
	w.api.ForgetRequests()

	older := w.newClient(clock.now)
	advance(renewal)
	older.askUntil(w, func() bool { return len(older.sent) == 15 }) // its 50 s end seconds before the other's
	younger := w.newClient(clock.now)
	older.askUntil(w, func() bool { younger.mustAsk(w); return len(older.tokens()) == 2 })
	advance(renewal)
	younger.askUntil(w, func() bool { older.mustAsk(w); return len(younger.tokens()) == 2 })

	if n := older.bad() + younger.bad(); n > 0 {
		t.Errorf("%d requests carried an expired token", n)
	}
	all := append(older.tokens(), younger.tokens()...)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n < 3 {
		t.Errorf("%d different tokens were sent, want 3", n)
	}
	w.checkJournal(len(older.sent) + len(younger.sent))
}

// renewal is the age at which a token must have been renewed.
const renewal = expiration * time.Second * 8 / 10

// client is a stock one that knows the API server and where its token is.
type client struct {
	wiretap
	kubernetes.Interface
}

func (w *world) newClient(now func() time.Time) *client {
	w.t.Helper()
	c := &client{wiretap: wiretap{now: now}}
	config := &rest.Config{
		Host: w.api.URL(), TLSClientConfig: rest.TLSClientConfig{CAData: w.api.CA()}, BearerTokenFile: w.file,
		UserAgent: agent, QPS: -1,
	}
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper { c.base = rt; return &c.wiretap })
	var err error
	if c.Interface, err = kubernetes.NewForConfig(config); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (c *client) ask(w *world) error {
	_, err := c.CoreV1().Nodes().Get(w.ctx, daemontest.Node, metav1.GetOptions{})
	return err
}

func (c *client) mustAsk(w *world) {
	w.t.Helper()
	if err := c.ask(w); err != nil {
		w.t.Fatal(err)
	}
}

func (c *client) askUntil(w *world, done func() bool) {
	w.t.Helper()
	for !done() {
		c.mustAsk(w)
	}
}

const agent = "pod"

// pace makes the server take its time with each request of the clients, who would otherwise send thousands.
func (w *world) pace() {
	ours := func(r *fakeapi.Request) bool { return r.UserAgent == agent }
	w.api.Inject(fakeapi.Fault{Match: fakeapi.Match{Func: ours}, Latency: 200 * time.Millisecond})
}

// checkJournal compares with what the server saw: that many requests, and the pod's account in all of them.
func (w *world) checkJournal(requests int) {
	w.t.Helper()
	good := w.api.Requests(fakeapi.Match{Func: func(r *fakeapi.Request) bool {
		return r.UserAgent == agent && r.User == account && r.Code == http.StatusOK
	}})
	if len(good) != requests {
		w.t.Errorf("the server served %d requests of %s, want all %d", len(good), account, requests)
	}
}
