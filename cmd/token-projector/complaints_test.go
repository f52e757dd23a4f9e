package main

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestComplaints: what clients can make net/http complain of is said once in a minute, from whatever address they come, and bounded;
// a kind of its own is what the daemon does wrong.
func TestComplaints(t *testing.T) {
	core, seen := observer.New(zapcore.DebugLevel)
	l := listenTCP(t)
	s := served(t, zap.New(core), l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(errors.New("planted")) }))
	for port := range 3 {
		s.ErrorLog.Printf("http: TLS handshake error from [::1]:%d: %s", port, strings.Repeat("x", 1000))
		s.ErrorLog.Printf("timeout waiting for SETTINGS frames from [::1]:%d", port)
		s.ErrorLog.Printf("http2: server connection error from [::1]:%d: %s", port, strings.Repeat("x", 1000))
		s.ErrorLog.Printf("http: Accept error: %d", port)
		if _, _, err := ask(dial(t, l), http.MethodGet, get); err == nil {
			t.Error("a handler that panics answers")
		}
	}
	for message, want := range map[string]struct {
		level  zapcore.Level
		reason string // begins so
	}{
		"a client failed to shake hands":   {zapcore.InfoLevel, "xxx"},
		"a client does not keep to HTTP/2": {zapcore.InfoLevel, "timeout waiting for SETTINGS frames from [::1]:0"},
		"serving went wrong":               {zapcore.WarnLevel, "http: Accept error: 0"},
		"answering a request panicked":     {zapcore.ErrorLevel, "http: panic serving 127.0.0.1"},
	} {
		lines := seen.FilterMessage(message).All()
		if len(lines) != 1 {
			t.Errorf("%q: %d lines, want 1", message, len(lines))
			continue
		}
		reason := lines[0].ContextMap()["error"].(string)
		if lines[0].Level != want.level || !strings.HasPrefix(reason, want.reason) {
			t.Errorf("%q: %v, %.100q", message, lines[0].Level, reason)
		}
		if panicked := strings.Contains(reason, "planted"); !panicked && len(reason) > maxReason || panicked != strings.Contains(message, "panicked") {
			t.Errorf("%q: %d bytes: %.1000q", message, len(reason), reason)
		}
	}
	if n := seen.Len(); n != 4 {
		t.Errorf("%d lines: %v", n, seen.All())
	}
}

// TestFailedHandshakes: handshakes that fail have the web config read once in a second at most, and then again after the last of
// them, so that a bad one is said to be.
func TestFailedHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, seen := observer.New(zapcore.DebugLevel)
		c := &webConfig{path: webFile(t, user(t)), log: zap.New(core)}
		s := newServer(zap.New(core), newPipes(), http.NotFoundHandler(), c)
		fail := func() {
			for range 10 {
				s.ErrorLog.Printf("http: TLS handshake error from [::1]:1: EOF")
			}
		}
		fail()
		if got := seen.TakeAll(); len(got) != 1 || got[0].Message != "a client failed to shake hands" {
			t.Fatalf("lines %v", got)
		}
		if err := os.WriteFile(c.path, []byte("a"), 0o600); err != nil {
			t.Fatal(err)
		}
		fail()
		if seen.Len() != 0 {
			t.Fatalf("it was read again at once: %v", seen.All())
		}
		time.Sleep(checkEvery)
		synctest.Wait()
		if got := seen.TakeAll(); len(got) != 1 || !strings.Contains(got[0].Message, "the web config is bad") {
			t.Fatalf("lines %v", got)
		}
		time.Sleep(time.Minute)
		fail()
		time.Sleep(checkEvery)
		if seen.Len() != 0 { // the client is not to blame
			t.Errorf("lines %v", seen.All())
		}
	})
}
