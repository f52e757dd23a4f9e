package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/token-projector/token-projector/metrics"
	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/rotation"
)

// observation is the command line of observe.
type observation struct {
	rootDir  string
	sweep    time.Duration
	grace    time.Duration
	perToken bool
	serving
}

func observeCommand() *cobra.Command {
	o := &observation{}
	c := &cobra.Command{
		Use:   "observe",
		Short: "Export the age, expiry and lateness of tokens that the kubelet keeps",
		Long: "Reads every projected token below a root, the kubelet's if nothing else is said, when it changes and every --sweep, and serves\n" +
			"what it has seen as metrics. It changes nothing and asks no API server; times are this machine's.",
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return misuse{err}
			}
			return o.run(c.Context(), newLogger(&o.serving, c.ErrOrStderr()))
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.rootDir, "root-dir", "/var/lib/kubelet", "root to read: the kubelet's, or ours")
	f.DurationVar(&o.sweep, "sweep", 30*time.Second, "how often everything is read, whether or not anything was seen to change")
	f.DurationVar(&o.grace, "grace", 2*time.Minute, "how late a refresh may be before the token counts as stale; the kubelet's are up to 91 s late")
	f.BoolVar(&o.perToken, "per-token-metrics", false, "two more series for each token, with namespace, pod, volume, path and audience: as many as tokens, and new ones with each pod")
	o.serving.addFlags(f)
	return c
}

// maxSweep is the longest sweep: the alert TokenProjectorNotReady takes who has not looked for ten minutes for one that looks no more.
const maxSweep = 5 * time.Minute

func (o *observation) complete() error {
	if err := validRoot(o.rootDir); err != nil {
		return err
	}
	switch {
	case o.sweep < time.Second || o.sweep > maxSweep:
		return fmt.Errorf("--sweep %s: must be from 1s to 5m", o.sweep)
	case o.grace < 0:
		return fmt.Errorf("--grace %s: must not be negative", o.grace)
	case o.perToken && o.openMetrics():
		return fmt.Errorf("--per-token-metrics: they name pods, and %q is open to everybody by --metrics-insecure; use --web-config-file, or a loopback address", o.metricsAddress)
	}
	return o.serving.validate()
}

// run observes until ctx ends. Its last line tells how it ended.
func (o *observation) run(ctx context.Context, log *zap.Logger) error {
	return ended(log, o.work(ctx, log))
}

// work looks and serves until ctx ends.
func (o *observation) work(ctx context.Context, log *zap.Logger) error {
	if err := keepPrivate(); err != nil {
		log.Warn(notPrivate, zap.Error(err))
	}
	log.Info("observing", zap.String("version", version), zap.String("root", o.rootDir))
	m := metrics.NewObserver(version, revision(), o.perToken)
	w := &lookout{observation: o, log: log, lateness: m.RefreshLateness, lives: map[string]rotation.Lifetime{}}
	m.Source(w.observe)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	o.handleProfiles(mux)
	metricsServer, err := listenMetrics(log, &o.serving, mux)
	if err != nil {
		return err
	}
	defer metricsServer.Close()
	healthServer, err := listenHealth(log, &o.serving, w.probes())
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return metricsServer.serve(ctx) })
	g.Go(func() error { return healthServer.serve(ctx) })
	g.Go(func() error { return w.run(ctx) })
	return g.Wait()
}

// lookout looks at a root. Its loop owns all but seen.
type lookout struct {
	*observation
	log      *zap.Logger
	lateness func(time.Duration)
	lives    map[string]rotation.Lifetime // of the token in each file, when it was last seen
	failing  string                       // why the root could not be read; "": it could
	blind    bool                         // some directory is not watched
	unread   map[string]sighting          // of volumes that could not be read, by directory

	seen atomic.Pointer[look] // the latest
}

// look is what one look at everything has found.
type look struct {
	at            time.Time
	tokens        []sighting
	waiting       []sighting // volumes without a token
	unreadable    int
	watchDegraded bool
}

// settle is how long a change may go on before it is looked at: a pod comes with many files.
const settle = time.Second

// run looks whenever something changes, a moment later, and now and then.
func (w *lookout) run(ctx context.Context) error {
	watches, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("nothing is watched; looking now and then", zap.Error(err))
		watches, w.blind = &fsnotify.Watcher{}, true
	} else {
		defer watches.Close()
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	hurry := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watches.Events:
			if !hurry {
				hurry = true
				timer.Reset(settle)
			}
			continue
		case <-watches.Errors: // an overflow: the sweep sees what was missed
			continue
		case <-timer.C:
		}
		hurry = false
		w.look(time.Now(), func(dir string) error {
			if watches.Events == nil {
				return fsnotify.ErrClosed
			}
			return watches.Add(dir)
		})
		timer.Reset(w.sweep)
	}
}

// look reads everything, and has every directory watched before it is read. A directory that was mounted over since has another watch then.
func (w *lookout) look(now time.Time, watch func(dir string) error) {
	l := &look{at: now}
	lives, unread, pods := map[string]rotation.Lifetime{}, map[string]sighting{}, map[string]bool{}
	add := func(dir string) {
		// What may not be read cannot be watched either, and is told otherwise.
		if err := watch(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission) {
			l.watchDegraded = true
		}
	}
	add(filepath.Join(w.rootDir, "pods"))
	err := projector.Survey(w.rootDir, func(v projector.FoundVolume) {
		if parent := filepath.Dir(v.Dir); v.Key.Volume != "" && !pods[parent] {
			pods[parent] = true
			add(parent)
		}
		add(v.Dir)
		for _, t := range v.Tokens {
			s := newSighting(v, t, now, w.grace)
			if s.State == stateForeign { // put there by somebody else, such as a secret with a token for another cluster
				continue
			}
			l.tokens = append(l.tokens, s)
			w.compare(s, t.Claims.Lifetime)
			lives[s.File] = t.Claims.Lifetime
		}
		if s, ok := tokenless(v, now, w.grace); ok && s.State == stateUnreadable {
			l.unreadable++
			unread[s.File] = s
		} else if ok {
			l.waiting = append(l.waiting, s)
		}
	})
	w.noteRoot(err)
	if err == nil {
		w.noteBlind(l.watchDegraded)
		w.noteUnread(unread, l.tokens)
		w.lives = lives
		w.seen.Store(l)
	}
}

// compare counts a token that has taken the place of another one.
func (w *lookout) compare(s sighting, life rotation.Lifetime) {
	if before, ok := w.lives[s.File]; ok && life.Issued.After(before.Issued) {
		w.lateness(life.Issued.Sub(before.Limit()))
	}
}

// noteRoot says once that the root cannot be read, and once that it can.
func (w *lookout) noteRoot(err error) {
	said := w.failing
	if w.failing = ""; err != nil {
		w.failing = err.Error()
	}
	switch {
	case w.failing != "" && said == "":
		w.log.Error("root cannot be read; trying on", zap.String("root", w.rootDir), zap.Error(err))
	case w.failing == "" && said != "":
		w.log.Info("root can be read again", zap.String("root", w.rootDir))
	}
}

func (w *lookout) noteBlind(blind bool) {
	switch {
	case blind && !w.blind:
		w.log.Warn("some directories are not watched, and only looked at now and then; raise fs.inotify.max_user_watches", zap.Duration("sweep_seconds", w.sweep))
	case w.blind && !blind:
		w.log.Info("all directories are watched again")
	}
	w.blind = blind
}

// noteUnread says once of each volume that it cannot be read, and once that it can. tokens are those of this look: where they name
// a pod, its volumes are said to be of it.
func (w *lookout) noteUnread(unread map[string]sighting, tokens []sighting) {
	for dir, s := range unread {
		if before, said := w.unread[dir]; said {
			unread[dir] = before
			continue
		}
		s.Namespace, s.Pod = w.podOf(s.PodUID, tokens)
		unread[dir] = s
		w.log.Warn("volume cannot be read", append(s.fields(), zap.String("error", s.Error))...)
	}
	for dir, s := range w.unread {
		if _, still := unread[dir]; !still {
			w.log.Info("volume can be read again, or is gone", s.fields()...)
		}
	}
	w.unread = unread
}

// podOf is what the pod's tokens of this look, or else of the one before, say of its name; "": nothing.
func (w *lookout) podOf(uid string, tokens []sighting) (namespace, name string) {
	if before := w.seen.Load(); before != nil {
		tokens = slices.Concat(tokens, before.tokens)
	}
	for _, s := range tokens {
		if s.PodUID == uid {
			return s.Namespace, s.Pod
		}
	}
	return "", ""
}

// fields name the volume in a log line.
func (s sighting) fields() []zap.Field {
	return []zap.Field{zap.String("namespace", s.Namespace), zap.String("pod", s.Pod), zap.String("pod_uid", s.PodUID), zap.String("volume", s.Volume)}
}

// observe is what the latest look has found, as it is now: a token grows old without being looked at.
func (w *lookout) observe(now time.Time) metrics.Observation {
	l := w.seen.Load()
	if l == nil {
		return metrics.Observation{}
	}
	o := metrics.Observation{
		Looked: l.at, Unreadable: l.unreadable, WatchDegraded: l.watchDegraded,
		Tokens: map[string]int{statePending: len(l.waiting)},
		Each:   make([]metrics.ObservedToken, 0, len(l.tokens)),
	}
	for _, s := range l.tokens {
		o.Tokens[s.stateAt(now, w.grace)]++
		o.Overdue = max(o.Overdue, now.Sub(s.RefreshBy))
		o.Each = append(o.Each, metrics.ObservedToken{
			Namespace: s.Namespace, Pod: s.Pod, Volume: s.Volume, Path: s.Path, Audience: clip(strings.Join(s.Audiences, ",")),
			Issued: s.Issued, Expires: s.Expires,
		})
	}
	return o
}

// lateSweeps is after how many sweeps that could not read the root what was seen before is too old to be told.
const lateSweeps = 5

// probes answer: who lives is healthy, because a restart helps no root; ready is who has read it of late.
func (w *lookout) probes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, "ok") })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		if l := w.seen.Load(); l == nil || time.Since(l.at) > lateSweeps*w.sweep {
			http.Error(rw, "the root has not been read", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(rw, "ok")
	})
	return mux
}
