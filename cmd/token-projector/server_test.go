package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/token-projector/token-projector/metrics"
)

const get = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"

// TestReadOnly: what is served is read, by GET and HEAD, under its very name and without a body; everything else is refused, on both
// addresses, and no answer repeats the request.
func TestReadOnly(t *testing.T) {
	m := metrics.New("v", "r")
	for name, c := range map[string]struct {
		handler http.Handler
		good    string
	}{
		"health":  {(&health{}).handler(), "/healthz"},
		"metrics": {metricsHandler(&options{}, m, &health{}), "/metrics"},
	} {
		l := listenTCP(t)
		served(t, zap.NewNop(), l, c.handler)
		for request, want := range map[string]int{
			"GET " + c.good + " HTTP/1.1\r\nHost: a":                                        200,
			"HEAD " + c.good + " HTTP/1.1\r\nHost: a":                                       200,
			"GET " + c.good + " HTTP/1.0":                                                   200,
			"GET " + c.good + "?canary HTTP/1.1\r\nHost: canary":                            200,
			"POST " + c.good + " HTTP/1.1\r\nHost: a":                                       405,
			"PUT " + c.good + " HTTP/1.1\r\nHost: a\r\nContent-Length: 1000":                405,
			"DELETE " + c.good + " HTTP/1.1\r\nHost: a":                                     405,
			"OPTIONS * HTTP/1.1\r\nHost: a":                                                 405,
			"TRACE " + c.good + " HTTP/1.1\r\nHost: a\r\nX-Canary: canary":                  405,
			"CONNECT canary:80 HTTP/1.1\r\nHost: canary:80":                                 405,
			"canary " + c.good + " HTTP/1.1\r\nHost: a":                                     405,
			"GET " + c.good + " HTTP/1.1\r\nHost: a\r\nContent-Length: 1000":                413,
			"GET " + c.good + " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked":          413,
			"GET //canary/.." + c.good + " HTTP/1.1\r\nHost: a":                             404,
			"GET /canary/.." + c.good + "?<canary> HTTP/1.1\r\nHost: a":                     404,
			"GET " + c.good + "/ HTTP/1.1\r\nHost: a":                                       404,
			"GET /<canary> HTTP/1.1\r\nHost: a":                                             404,
			"GET /debug/pprof/ HTTP/1.1\r\nHost: a":                                         404,
			"GET /debug/vars HTTP/1.1\r\nHost: a":                                           404,
			"GET http://canary" + c.good + " HTTP/1.1\r\nHost: a":                           200,
			"GET " + c.good + " HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("canary", 9e3): 431,
		} {
			method, _, _ := strings.Cut(request, " ")
			resp, body, err := ask(dial(t, l), method, request+"\r\n\r\n")
			if err != nil {
				t.Errorf("%s: %.80q: %v", name, request, err)
				continue
			}
			if resp.StatusCode != want {
				t.Errorf("%s: %.80q: %s, want %d", name, request, resp.Status, want)
			}
			if said := fmt.Sprint(resp.Status, resp.Header, body); strings.Contains(said, "canary") {
				t.Errorf("%s: %.80q is repeated: %s", name, request, said)
			}
			if want == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s: %.80q: Allow is %q", name, request, resp.Header.Get("Allow"))
			}
			if want == 200 && (resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store") {
				t.Errorf("%s: %.80q: headers %v", name, request, resp.Header)
			}
		}
	}
}

// TestTimeOuts: a client that is slow, in whatever part of a request, has its connection closed, at the very second.
func TestTimeOuts(t *testing.T) {
	for name, c := range map[string]struct {
		send func(net.Conn)
		want time.Duration
	}{
		"says nothing": {func(net.Conn) {}, headerTimeout},
		"header, a byte a second": {func(c net.Conn) {
			for _, b := range []byte(get) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, headerTimeout},
		"nothing after an answer": {func(c net.Conn) { io.WriteString(c, get) }, idleTimeout},
		"half a second request": {func(c net.Conn) {
			io.WriteString(c, get)
			time.Sleep(time.Second)
			io.WriteString(c, get[:9])
		}, time.Second + headerTimeout},
		"a body that does not come": {func(c net.Conn) {
			io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				served(t, zap.NewNop(), l, (&health{}).handler())
				conn := l.dial()
				begun := time.Now()
				go c.send(conn)
				io.Copy(io.Discard, conn)
				if got := time.Since(begun); got != c.want {
					t.Errorf("closed after %v, want %v", got, c.want)
				}
				time.Sleep(time.Hour) // whatever send still waits for
			})
		})
	}
}

// TestUnreadAnswer: a client that does not read its answer does not hold the connection for ever.
func TestUnreadAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		failed := make(chan time.Time, 1)
		served(t, zap.NewNop(), l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					failed <- time.Now()
					return
				}
			}
		}))
		begun, conn := time.Now(), l.dial()
		io.WriteString(conn, get)
		if got := (<-failed).Sub(begun); got != answerTime {
			t.Errorf("the answer was given up after %v, want %v", got, answerTime)
		}
	})
}

// TestUnreadProbe: nor does one that does not read the answers to its probes, for longer than a probe takes.
func TestUnreadProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := listenHealth(zap.NewNop(), &serving{healthAddress: "127.0.0.1:0"}, (&health{}).handler())
		if err != nil {
			t.Fatal(err)
		}
		s.listener.Close()
		l := newPipes()
		s.listener = l
		runServer(t, s)
		conn := l.dial()
		io.WriteString(conn, get)
		time.Sleep(probeTime + time.Nanosecond)
		synctest.Wait()
		if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%d bytes and %v after %v, want the end", n, err, probeTime)
		}
	})
}

// TestConnectionAge: a connection is not kept for longer than a minute, however busy.
func TestConnectionAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		served(t, zap.NewNop(), l, (&health{}).handler())
		conn, begun := l.dial(), time.Now()
		for closed := false; !closed && time.Since(begun) < 2*connectionAge; {
			resp, _, err := ask(conn, http.MethodGet, get)
			if err != nil {
				t.Fatal(err)
			}
			if closed = resp.Close; !closed {
				time.Sleep(15 * time.Second)
			}
		}
		if got := time.Since(begun); got != connectionAge {
			t.Errorf("the last answer came after %v, want %v", got, connectionAge)
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes after the last answer", n)
		}
	})
}

// TestFlood: connections that say nothing, or a part of a header, or are idle after an answer, neither pile up nor keep a
// client out that has something to ask.
func TestFlood(t *testing.T) {
	l := &counted{Listener: listenTCP(t)}
	served(t, zap.NewNop(), l, (&health{}).handler())
	quiet := dial(t, l)
	for i := range 4 * maxConnections {
		c := dial(t, l)
		switch i % 3 {
		case 0:
			io.WriteString(c, get[:20])
		case 1:
			if resp, _, err := ask(c, http.MethodGet, get); err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("beside %d connections: %v, %v", i, resp, err)
			}
		}
	}
	if resp, _, err := ask(dial(t, l), http.MethodGet, get); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("a probe: %v, %v", resp, err)
	}
	if n, err := quiet.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes on the oldest connection, which should be closed", n)
	}
	if most := l.most.Load(); most > maxConnections+1 {
		t.Errorf("%d connections were open at once, want %d and the new one at most", most, maxConnections)
	}
	if accepted := l.accepted.Load(); accepted < 4*maxConnections {
		t.Errorf("only %d connections were accepted", accepted)
	}
}

// TestFloodOfRequests: clients that ask and ask, and do not read the answers, do not keep a probe waiting.
func TestFloodOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		served(t, zap.NewNop(), l, (&health{}).handler())
		for range 2 * maxConnections {
			conn := l.dial()
			go func() { // until the connection makes way, or the server gives up
				for err := error(nil); err == nil; {
					_, err = io.WriteString(conn, get+get)
				}
			}()
		}
		synctest.Wait() // for all to be stuck
		for range 3 {
			begun := time.Now()
			resp, _, err := ask(l.dial(), http.MethodGet, get)
			if err != nil || resp.StatusCode != http.StatusOK || time.Since(begun) != 0 {
				t.Fatalf("a probe: %v, %v, after %v", resp, err, time.Since(begun))
			}
		}
	})
}

// TestConnections: the connection that has waited the longest makes way for a new one; while all are being answered, the one that
// has been the longest.
func TestConnections(t *testing.T) {
	c := &connections{max: 2}
	conns := make([]net.Conn, 4)
	for i := range conns {
		conns[i], _ = net.Pipe()
	}
	for i, step := range []struct {
		conn   int
		state  http.ConnState
		victim int // -1: none
	}{
		{0, http.StateNew, -1}, {0, http.StateActive, -1}, {1, http.StateNew, -1}, {1, http.StateActive, -1},
		{2, http.StateNew, 0}, {0, http.StateClosed, -1}, // none waits: the oldest answer
		{2, http.StateActive, -1}, {1, http.StateActive, -1}, {0, http.StateNew, 2}, {2, http.StateClosed, -1},
		{3, http.StateNew, 0}, {0, http.StateClosed, -1}, // one waits, though it came last
		{1, http.StateIdle, -1}, {2, http.StateNew, 3}, {3, http.StateClosed, -1},
		{1, http.StateClosed, -1}, {0, http.StateNew, -1}, {1, http.StateNew, 2},
	} {
		victim := c.take(conns[step.conn], step.state)
		if (step.victim < 0) != (victim == nil) || step.victim >= 0 && victim != conns[step.victim] {
			t.Fatalf("step %d: closes %v, want %d", i, victim, step.victim)
		}
	}
}

// TestShutdown: the daemon's end waits for answers under way, not for idle connections, nor for ever.
func TestShutdown(t *testing.T) {
	for name, c := range map[string]struct{ takes, want time.Duration }{
		"short answer": {time.Second, time.Second}, "endless answer": {time.Hour, shutdownTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, begun := newPipes(), make(chan struct{})
				s := newServer(zap.NewNop(), l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					close(begun)
					select {
					case <-r.Context().Done():
					case <-time.After(c.takes):
					}
				}), &webConfig{})
				ctx, end := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- s.serve(ctx) }()
				answered := make(chan error, 1)
				go func() {
					_, _, err := ask(l.dial(), http.MethodGet, get)
					answered <- err
				}()
				<-begun
				stopped := time.Now()
				end()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				// Shutdown looks every half second at most whether it is over.
				if got := time.Since(stopped); got < c.want || got > c.want+600*time.Millisecond {
					t.Errorf("ended after %v, want %v", got, c.want)
				}
				if err := <-answered; (err == nil) != (c.takes == c.want) {
					t.Errorf("answer: %v", err)
				}
			})
		})
	}
}
