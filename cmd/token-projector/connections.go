package main

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// maxConnections is how many connections a server keeps open. Prometheus keeps one, a probe none.
const maxConnections = 64

// connections bounds how many are open. The one that has been waiting for a request the longest makes way for a new one,
// so that connections without requests, be they as many as they like, neither take all descriptors nor keep the
// kubelet's probes out: which would restart the daemon.
type connections struct {
	max int // more than 0

	mu   sync.Mutex
	open map[net.Conn]*connection
	turn uint64
}

type connection struct {
	waiting bool   // for a request, or in the middle of its header
	since   uint64 // the turn in which it began to wait
}

// changed is told each change of a connection's state.
func (c *connections) changed(conn net.Conn, state http.ConnState) {
	if victim := c.take(conn, state); victim != nil {
		closeAtOnce(victim)
	}
}

// take takes a change in, and returns the connection that must be closed for it, if one must.
func (c *connections) take(conn net.Conn, state http.ConnState) (victim net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn++
	switch state {
	case http.StateNew:
		if len(c.open) >= c.max {
			victim = c.longestWaiting()
			delete(c.open, victim)
		}
		if len(c.open) >= c.max { // every one is being answered
			return conn
		}
		if c.open == nil {
			c.open = make(map[net.Conn]*connection)
		}
		c.open[conn] = &connection{waiting: true, since: c.turn}
	case http.StateActive, http.StateIdle:
		if known := c.open[conn]; known != nil {
			known.waiting, known.since = state == http.StateIdle, c.turn
		}
	case http.StateHijacked, http.StateClosed:
		delete(c.open, conn)
	}
	return victim
}

// longestWaiting is nil if none waits.
func (c *connections) longestWaiting() (longest net.Conn) {
	for conn, state := range c.open {
		if state.waiting && (longest == nil || state.since < c.open[longest].since) {
			longest = conn
		}
	}
	return longest
}

// closeAtOnce closes without TLS's good-bye, for which Close would wait.
func closeAtOnce(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}
