package main

import (
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// complaints is where net/http writes what went wrong. Whoever reaches the port can make it do so, and most of it holds
// the client's address, so that no two are the same: of each kind, one in a minute.
type complaints struct {
	log *zap.Logger // one of each message in a minute
	web *webConfig  // which says itself what is wrong with it

	mu    sync.Mutex
	next  time.Time // when the web config may be read again; zero: at once
	later bool      // it will be then
}

const (
	maxReason = 200 // bytes of a log line's quotation: a client's certificate may be in it

	// checkEvery is how often failed handshakes have the web config read: clients can fail much more often.
	checkEvery = time.Second
)

func (c *complaints) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if rest, ok := strings.CutPrefix(text, "http: TLS handshake error from "); ok {
		if c.clientsFault() {
			_, reason, _ := strings.Cut(rest, ": ") // after the client's address
			c.log.Info("a client failed to shake hands", quoted(reason))
		}
		return len(line), nil
	}
	switch {
	case strings.HasPrefix(text, "http: panic serving "), strings.HasPrefix(text, "http2: panic serving "):
		c.log.Error("answering a request panicked", zap.String("error", text)) // with its stack, which net/http bounds
	case strings.HasPrefix(text, "http: "): // to accept a connection, for one
		c.log.Warn("serving went wrong", quoted(text))
	default:
		c.log.Info("a client does not keep to HTTP/2", quoted(text))
	}
	return len(line), nil
}

func quoted(reason string) zap.Field {
	return zap.String("error", reason[:min(len(reason), maxReason)])
}

// clientsFault says whether a handshake failed although the web config is good. It looks at once, or, if it has just
// done so, later and without an answer.
func (c *complaints) clientsFault() bool {
	c.mu.Lock()
	wait := time.Until(c.next)
	if wait > 0 {
		if !c.later {
			c.later = true
			time.AfterFunc(wait, c.check)
		}
		c.mu.Unlock()
		return false
	}
	c.next = time.Now().Add(checkEvery)
	c.mu.Unlock()
	return c.web.check() == nil
}

func (c *complaints) check() {
	c.mu.Lock()
	c.later, c.next = false, time.Now().Add(checkEvery)
	c.mu.Unlock()
	c.web.check()
}
