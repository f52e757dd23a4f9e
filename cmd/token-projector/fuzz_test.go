package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/token-projector/token-projector/metrics"
)

// canary stands in requests for what must not come back in any form.
const canary = "zqxj7"

// longestAnswer bounds one answer, in bytes; the largest are metrics.
const longestAnswer = 1 << 20

// script is a connection whose client has sent everything already, and goes away.
type script struct {
	in     *bytes.Reader
	out    bytes.Buffer
	closed chan struct{}
}

func (s *script) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *script) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

func (s *script) Close() error {
	select {
	case <-s.closed:
		return net.ErrClosed
	default:
		close(s.closed)
		return nil
	}
}

// judged is a server whose every answer is judged.
type judged struct {
	l       *pipes
	answers int
	faults  []error // in the answers to the connection at hand
}

func judge(t testing.TB, h http.Handler, c *webConfig) *judged {
	j := &judged{l: newPipes()}
	s := newServer(zap.NewNop(), j.l, h, c)
	inner := s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { j.answer(inner, w, r) })
	runServer(t, s)
	return j
}

func (j *judged) answer(h http.Handler, w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			j.faults = append(j.faults, fmt.Errorf("%s %q: panic: %v", r.Method, r.URL, p))
		}
	}()
	seen := &seenAnswer{ResponseWriter: w}
	h.ServeHTTP(seen, r)
	j.answers++
	probe := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
	if seen.status >= 500 && !(probe && seen.status == http.StatusServiceUnavailable) {
		j.faults = append(j.faults, fmt.Errorf("%s %q: status %d", r.Method, r.URL, seen.status))
	}
	if seen.length > longestAnswer {
		j.faults = append(j.faults, fmt.Errorf("%s %q: %d bytes", r.Method, r.URL, seen.length))
	}
}

type seenAnswer struct {
	http.ResponseWriter
	status, length int
}

func (s *seenAnswer) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *seenAnswer) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

func (s *seenAnswer) Write(p []byte) (int, error) {
	s.length += len(p)
	return s.ResponseWriter.Write(p)
}

var statusLine = regexp.MustCompile(`HTTP/1\.[01] (5\d\d)`)

// send sends raw bytes on a connection of their own, and returns what was wrong with the answers.
func (j *judged) send(raw []byte) error {
	j.answers, j.faults = 0, nil
	c := &script{in: bytes.NewReader(raw), closed: make(chan struct{})}
	j.l.conns <- c
	<-c.closed
	if i := bytes.Index(bytes.ToLower(c.out.Bytes()), []byte(canary)); i >= 0 {
		j.faults = append(j.faults, fmt.Errorf("the answer repeats the request: %.200q", c.out.Bytes()[max(0, i-100):]))
	}
	// 501 and 505 are net/http's, to encodings and versions that it does not know.
	for _, m := range statusLine.FindAllSubmatch(c.out.Bytes(), -1) {
		if s := string(m[1]); s != "501" && s != "503" && s != "505" {
			j.faults = append(j.faults, fmt.Errorf("status %s", s))
		}
	}
	if most := (j.answers + 1) * (longestAnswer + maxHeaderBytes); c.out.Len() > most {
		j.faults = append(j.faults, fmt.Errorf("%d bytes of %d answers", c.out.Len(), j.answers))
	}
	return errors.Join(j.faults...)
}

// FuzzRequests: whatever is sent to either port, nothing panics or fails, nothing comes back, and answers are bounded; where a
// password is asked for, nothing is reached without it.
func FuzzRequests(f *testing.F) {
	locked := judge(f, metricsHandler(&options{serving: serving{pprof: true}}, metrics.New("v", "r"), &health{}), &webConfig{path: webFile(f, user(f)), log: zap.NewNop()})
	const password = "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic cmVhZGVyOnJpZ2h0\r\n\r\n" // reader:right
	if err := locked.send([]byte(password)); err != nil || locked.answers != 1 {
		f.Fatalf("with the password: %d answers, %v", locked.answers, err)
	}
	health, metrics := judge(f, (&health{}).handler(), &webConfig{}), judge(f, metricsHandler(&options{}, metrics.New("v", "r"), &health{}), &webConfig{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := health.send(raw); err != nil {
			t.Errorf("health: %v", err)
		}
		if err := metrics.send(raw); err != nil {
			t.Errorf("metrics: %v", err)
		}
		if err := locked.send(raw); err != nil || locked.answers > 0 && !bytes.Contains(raw, []byte("cmVhZGVyOnJpZ2h0")) {
			t.Errorf("locked: %d answers, %v", locked.answers, err)
		}
	})
}

// TestJudge: what FuzzRequests looks for is found where it is.
func TestJudge(t *testing.T) {
	const request = "GET /" + canary + " HTTP/1.1\r\nHost: a\r\n\r\n"
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string // "": nothing is wrong
	}{
		"sound": {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }, ""},
		"echo": {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.ToUpper(r.URL.Path)) },
			"repeats"},
		"redirection": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"/", http.StatusFound) }, "repeats"},
		"failure":     {func(w http.ResponseWriter, r *http.Request) { http.Error(w, "", http.StatusInternalServerError) }, "500"},
		"unready":     {func(w http.ResponseWriter, r *http.Request) { http.Error(w, "", http.StatusServiceUnavailable) }, "503"},
		"panic":       {func(w http.ResponseWriter, r *http.Request) { panic("planted") }, "panic"},
		"long": {func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, longestAnswer+1)) },
			"bytes"},
	} {
		err := judge(t, c.answer, &webConfig{}).send([]byte(request + request))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: found %v, want %q", name, err, c.want)
		}
	}
}
