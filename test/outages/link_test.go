//go:build outages

package outages

import (
	"net"
	"sync"
	"testing"
)

// link carries connections to a server. Frozen, it passes no byte in either direction and closes nothing.
type link struct {
	listener net.Listener
	server   string
	ended    chan struct{}
	running  sync.WaitGroup

	mu    sync.Mutex
	flows chan struct{} // closed while bytes flow
	epoch int           // connections of an earlier one are frozen for ever
}

func newLink(t *testing.T, server string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, server: server, ended: make(chan struct{}), flows: make(chan struct{})}
	l.thaw()
	l.running.Go(l.serve)
	t.Cleanup(func() {
		close(l.ended)
		l.listener.Close()
		l.running.Wait()
	})
	return l
}

func (l *link) address() string { return l.listener.Addr().String() }

func (l *link) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flows = make(chan struct{})
}

func (l *link) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.flows)
}

// abandon thaws the link for new connections only.
func (l *link) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch++
	l.flows = make(chan struct{})
	close(l.flows)
}

func (l *link) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.carry(client) })
	}
}

// carry lasts until one side has closed, or the link ends.
func (l *link) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", l.server)
	if err != nil {
		return
	}
	defer server.Close()
	l.mu.Lock()
	born := l.epoch
	l.mu.Unlock()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		l.running.Go(func() {
			l.copy(way[1], way[0], born)
			done <- struct{}{}
		})
	}
	select {
	case <-done:
	case <-l.ended:
	}
}

// copy passes bytes on while they may flow.
func (l *link) copy(to, from net.Conn, born int) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !l.mayFlow(born) {
			return
		}
		if _, err2 := to.Write(buf[:n]); err != nil || err2 != nil {
			return
		}
	}
}

// mayFlow waits until bytes flow; false is the end of the link.
func (l *link) mayFlow(born int) bool {
	for {
		l.mu.Lock()
		flows, now := l.flows, l.epoch
		l.mu.Unlock()
		if now != born {
			flows = nil
		}
		select {
		case <-flows:
			return true
		case <-l.ended:
			return false
		}
	}
}
