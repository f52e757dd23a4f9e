package main

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.uber.org/zap"
)

const (
	headerTimeout   = 5 * time.Second // to send a request's header, or to shake hands
	requestReadTime = 10 * time.Second
	answerTime      = 10 * time.Second // as Prometheus waits, if not told otherwise; a profile's seconds are added
	idleTimeout     = time.Minute
	maxHeaderBytes  = 16 << 10
	maxStreams      = 16 // requests at once on one connection of HTTP/2

	// shutdownTime is how long requests that are being answered may take when the
	// daemon ends.
	shutdownTime = 2 * time.Second
)

// server serves one handler on one address.
type server struct {
	http.Server
	listener net.Listener
	web      *webConfig
}

// listen makes a server that listens already; serve must follow.
func listen(log *zap.Logger, what, address string, h http.Handler, c *webConfig) (*server, error) {
	if err := c.read(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", what, err)
	}
	return newServer(log.Named(what), l, h, c), nil
}

// newServer bounds what clients can take: time, memory and connections.
func newServer(log *zap.Logger, l net.Listener, h http.Handler, c *webConfig) *server {
	open := &connections{max: maxConnections}
	return &server{listener: l, web: c, Server: http.Server{
		Handler:           guard(h, c),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestReadTime,
		WriteTimeout: answerTime, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		HTTP2:                        &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		DisableGeneralOptionsHandler: true, // guard refuses OPTIONS as it does all
		ConnState:                    open.changed,
		ConnContext:                  withAcceptance,
		ErrorLog:                     stdlog.New(&complaints{log: oncePerMinute(log), web: c}, "", 0),
	}}
}

// serve answers until ctx ends, and what is being answered then.
func (s *server) serve(ctx context.Context) error {
	shut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(shut)
		s.shut()
	})
	err := web.Serve(s.listener, &s.Server, &web.FlagConfig{WebConfigFile: &s.web.path}, s.web.toolkitLog())
	if !stop() {
		<-shut
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *server) shut() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		s.Close()
	}
}
