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
// or, if none waits, the one that has been answered the longest: so that clients that ask nothing, or do not read what they asked
// for, be they as many as they like, neither take all descriptors nor keep the kubelet's probes out: which would restart the daemon.
type connections struct {
	max int // more than 0

	mu   sync.Mutex
	open map[net.Conn]*connection
	turn uint64
}

type connection struct {
	waiting bool   // for a request, or in the middle of its header
	since   uint64 // the turn in which it began to wait, or to be answered
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
			victim = c.longest()
			delete(c.open, victim)
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

// longest is who has waited the longest, or, if none waits, has been answered the longest.
func (c *connections) longest() (longest net.Conn) {
	var of *connection
	for conn, state := range c.open {
		if of == nil || state.waiting && !of.waiting || state.waiting == of.waiting && state.since < of.since {
			longest, of = conn, state
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
