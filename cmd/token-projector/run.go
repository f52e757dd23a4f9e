package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/token-projector/token-projector/metrics"
	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/rotation"
)

// run wires everything, and projects until ctx ends. Its last line tells how it ended.
func run(ctx context.Context, o *options, stderr io.Writer) error {
	log := newLogger(&o.serving, stderr)
	klog.SetLogger(zapr.NewLogger(clientLogger(log)))
	defer zap.RedirectStdLog(log.Named("log"))() // of net/http, should anybody set GODEBUG=http2debug
	return ended(log, work(ctx, o, log))
}

// work projects and serves until ctx ends.
func work(ctx context.Context, o *options, log *zap.Logger) error {
	if err := keepPrivate(); err != nil {
		log.Warn(notPrivate, zap.Error(err))
	}
	log.Info("starting", zap.String("version", version), zap.String("node", o.nodeName), zap.String("identity", o.identity),
		zap.String("root", o.rootDir), zap.String("volumes", o.volumes))
	o.warnOfIdentity(log)

	m, h := metrics.New(version, revision()), &health{}
	m.ObserveClientGo()
	m.Snapshot(h.snapshot)
	metricsServer, err := listenMetrics(log, &o.serving, metricsHandler(o, m, h))
	if err != nil {
		return err
	}
	defer metricsServer.Close()
	healthServer, err := listenHealth(log, &o.serving, h.handler())
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { h.draining.Store(true) })
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx)) // also while draining
	defer stopServing()
	g.Go(func() error { return metricsServer.serve(serving) })
	g.Go(func() error { return healthServer.serve(serving) })
	g.Go(func() error {
		defer stopServing()
		return project(gctx, o, log, m, h)
	})
	return g.Wait()
}

// ended says how the daemon has ended, and returns that.
func ended(log *zap.Logger, err error) error {
	if err != nil {
		log.Error("ended by an error", zap.Error(err))
	} else {
		log.Info("stopped")
	}
	return err
}

func listenHealth(log *zap.Logger, o *serving, h http.Handler) (*server, error) {
	s, err := listen(log, "health", o.healthAddress, h, &webConfig{})
	if err != nil {
		return nil, err
	}
	s.WriteTimeout = probeTime
	log.Info("serving health", zap.String("address", s.listener.Addr().String()))
	return s, nil
}

func listenMetrics(log *zap.Logger, o *serving, h http.Handler) (*server, error) {
	if o.openMetrics() {
		log.Warn("metrics are for whoever reaches them, as --metrics-insecure says", zap.String("address", o.metricsAddress))
	}
	c := &webConfig{path: o.webConfigFile, strict: o.secureMetrics(), log: log}
	s, err := listen(log, "metrics", o.metricsAddress, h, c)
	if err != nil {
		return nil, err
	}
	log.Info("serving metrics", zap.String("address", s.listener.Addr().String()))
	return s, nil
}

// metricsHandler is all that is served on the metrics' address, behind the web
// config.
func metricsHandler(o *options, m *metrics.Metrics, h *health) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	handleStatus(mux, o, h)
	o.handleProfiles(mux)
	return mux
}

// handleProfiles serves profiles, if that was asked for.
func (o *serving) handleProfiles(mux *http.ServeMux) {
	if o.pprof {
		// ServeMux's own redirection would repeat the query.
		mux.Handle("GET /debug/pprof", http.RedirectHandler("/debug/pprof/", http.StatusFound))
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
}

// project connects, and runs a Projector on the root until ctx ends.
func project(ctx context.Context, o *options, log *zap.Logger, m *metrics.Metrics, h *health) error {
	clock := rotation.SystemClock()
	c := projector.Config{
		NodeName: o.nodeName, PodSelector: o.selector, Selection: projector.Selection(o.volumes),
		MaxInFlight: o.maxInFlight, Advice: o.advice, Clock: clock, Metrics: m, Log: log,
	}
	if err := connect(ctx, &c, o, h); err != nil {
		return err
	}
	for {
		err := projectOnce(ctx, c, o, h)
		if !errors.Is(err, projector.ErrRootReplaced) {
			return err
		}
		log.Error("somebody deleted or replaced the root; opening it again. Containers that mounted from the old one keep that until they restart", zap.String("root", o.rootDir))
	}
}

// projectOnce opens the root and runs a Projector on it while it lasts.
func projectOnce(ctx context.Context, c projector.Config, o *options, h *health) error {
	root, err := openRoot(ctx, o, c.Log, h)
	if err != nil && ctx.Err() != nil {
		return nil // ended while it was a standby
	}
	if err != nil {
		return err
	}
	defer root.Close()
	c.Root = root
	p, err := projector.New(c)
	if err != nil {
		return err
	}
	h.projector.Store(p)
	h.standby.Store(false)
	defer func() {
		if ctx.Err() == nil {
			h.projector.Store(nil)
		}
	}()
	return p.Run(ctx)
}

// connect makes the clients. Every answer tells the Projector the server's time.
func connect(ctx context.Context, c *projector.Config, o *options, h *health) error {
	config, err := restConfig(o)
	if err != nil {
		return err
	}
	hear := func(server time.Time, sent, received rotation.Time) {
		if p := h.projector.Load(); p != nil {
			p.Hear(server, sent, received)
		}
	}
	wrap := func(rt http.RoundTripper) http.RoundTripper { return projector.HearServer(rt, c.Clock, hear) }
	if c.Client, err = watchClient(config, wrap); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if c.Events, err = eventRecorder(ctx, config, o.nodeName, wrap); err != nil {
		return fmt.Errorf("client: %w", err)
	}
	mint, err := mintClient(config, wrap)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	c.Mint = projector.NewMint(mint, requestTimeout)
	c.AccountUID = projector.NewAccountUID(mint, requestTimeout)
	return nil
}

// rootRetry is how often a root that was lost is tried again.
const rootRetry = time.Second

// openRoot opens the root. Whoever starts the daemon where that is not possible gets an error. A root that has been
// there is waited for: it may be what keeps it from being made anew, a full or read-only disk, that took it away.
func openRoot(ctx context.Context, o *options, log *zap.Logger, h *health) (*projector.Root, error) {
	timer := time.NewTimer(rootRetry)
	defer timer.Stop()
	for {
		root, err := projector.OpenRoot(ctx, o.rootDir, func() {
			h.rootFound(log)
			h.standby.Store(true)
			log.Info("another process holds the root; standing by", zap.String("root", o.rootDir))
		})
		switch {
		case err == nil:
			h.rootFound(log)
			sayFilesystem(log, o, root)
			return root, nil
		case ctx.Err() != nil, !h.begun.Load():
			return nil, err
		}
		h.rootLost(log, err)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
			timer.Reset(rootRetry)
		}
	}
}

// rootFound takes in that the root is there, be it another process's.
func (h *health) rootFound(log *zap.Logger) {
	h.begun.Store(true)
	if h.rootErr.Swap(nil) != nil {
		log.Info("root is there again")
	}
}

// rootLost takes in that a root that has been there cannot be opened any more.
func (h *health) rootLost(log *zap.Logger, err error) {
	h.standby.Store(false)
	if h.rootErr.Swap(&err) == nil {
		log.Error("root is lost, and can be neither opened nor made anew; trying every second", zap.Error(err))
	}
}

// sayFilesystem tells what tokens are written to.
func sayFilesystem(log *zap.Logger, o *options, root *projector.Root) {
	if root.InMemory() {
		log.Info("root is in memory; tokens reach a disk only through swap", rootFields(o, root)...)
	} else {
		log.Warn("root is not in memory; tokens are written to a disk", rootFields(o, root)...)
	}
}

func rootFields(o *options, root *projector.Root) []zap.Field {
	return []zap.Field{zap.String("root", o.rootDir), zap.String("filesystem", root.Filesystem())}
}

// clientLogger is for client-go, which logs every attempt of every watch, and of reading a certificate that is not there:
// of each message, one in a minute. None is an error: it does not know what its failures mean here, and what they do is said apart.
func clientLogger(log *zap.Logger) *zap.Logger {
	return oncePerMinute(log.Named("client-go").WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return warnings{c} })))
}

// warnings has of every line what is worse than a warning be one.
type warnings struct{ zapcore.Core }

// With implements zapcore.Core.
func (w warnings) With(fields []zapcore.Field) zapcore.Core { return warnings{w.Core.With(fields)} }

// Check implements zapcore.Core.
func (w warnings) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	e.Level = min(e.Level, zapcore.WarnLevel)
	return w.Core.Check(e, checked)
}

func oncePerMinute(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, time.Minute, 1, 0)
	}))
}

// newLogger returns the only logger there is. What it writes is scrubbed.
func newLogger(o *serving, stderr io.Writer) *zap.Logger {
	return zap.New(scrubbed{zapcore.NewCore(newEncoder(o), zapcore.Lock(zapcore.AddSync(stderr)), o.level)})
}

func newEncoder(o *serving) zapcore.Encoder {
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	config.TimeKey = "time"
	if o.logFormat == "console" {
		config.EncodeLevel = zapcore.CapitalLevelEncoder
		return zapcore.NewConsoleEncoder(config)
	}
	return zapcore.NewJSONEncoder(config)
}
