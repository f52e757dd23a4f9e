package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
)

const (
	// day is the life of the tokens of the part in which nothing falls due.
	day = 24 * time.Hour
	// vault is the life of the second token of each pod; the first one's is injected, 3607 s.
	vault = 10 * time.Minute
	// settling is after the last token.
	settling = 5 * time.Second
	// hopeless is after the time that is watched: what has not come by then counts as what never comes.
	hopeless = 30 * time.Second
	// idle is which part of the time of the refreshes nothing is due before them: half a minute, while the first injected
	// token may be due after a minute and a half.
	idle = 3
)

// nodeFigures are what one number of pods came to.
type nodeFigures struct {
	pods                     int
	toDisk                   time.Duration // from the daemon's start to its last token
	projectCPU               float64       // seconds of it
	floor                    time.Duration // bare time of as many TokenRequests
	settled                  cost          // before rest
	rested                   cost          // after rest
	restart                  restart
	worked                   []cost // while refreshes run: one per second
	refreshed                []refresh
	firsts, lates            []time.Duration // of pods that came then; of refreshes
	metricLate, metricNumber float64         // bound of the 99th percentile by the daemon's own metric, s; observations
	degraded                 bool            // not all volumes had inotify watches
}

// restart is what a restart cost.
type restart struct {
	ready, adopted           time.Duration // from the start to /readyz, and to the last token adopted
	requests, written, other float64       // TokenRequests; versions written; versions on disk that are not those from before
}

// playNode measures all numbers of pods, one after another, and prints a column for each.
func playNode(ctx context.Context, o *options, out io.Writer) error {
	var all []*nodeFigures
	var wrong []string
	for _, n := range o.pods {
		f := &nodeFigures{pods: n}
		w1, err := f.rest(ctx, o)
		if err != nil {
			return fmt.Errorf("%d pods: %w", n, err)
		}
		w2, err := f.work(ctx, o)
		if err != nil {
			return fmt.Errorf("%d pods: %w", n, err)
		}
		for _, w := range append(w1, w2...) {
			wrong = append(wrong, fmt.Sprintf("%d pods: %s", n, w))
		}
		all = append(all, f)
	}
	printNode(out, o, all)
	if o.out != "" {
		if err := plotNode(o.out, all); err != nil {
			return err
		}
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n  "))
	}
	return nil
}

// rest is the part in which nothing falls due: the first projection, idleness and a restart.
func (f *nodeFigures) rest(ctx context.Context, o *options) (wrong []string, err error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	r, err := w.fill(ctx, f.pods, day)
	if err != nil {
		return nil, err
	}
	for _, file := range r.files {
		f.toDisk = max(f.toDisk, file.first.Sub(w.daemon.started))
	}
	full, err := costOf(w.daemon.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	f.projectCPU = full.cpu
	if err := w.pause(ctx, settling); err != nil {
		return nil, err
	}
	if f.settled, err = costOf(w.daemon.cmd.Process.Pid); err != nil {
		return nil, err
	}
	if err := w.pause(ctx, o.length/idle); err != nil {
		return nil, err
	}
	if f.rested, err = costOf(w.daemon.cmd.Process.Pid); err != nil {
		return nil, err
	}
	m, err := w.daemon.scrape()
	if err != nil {
		return nil, err
	}
	f.degraded = m.sum("watch_degraded", "") > 0
	if f.restart, err = w.restart(ctx, r); err != nil {
		return nil, err
	}
	if s := f.restart; s.requests+s.written+s.other > 0 {
		wrong = append(wrong, fmt.Sprintf("a restart sent %.0f TokenRequests and wrote %.0f versions; %.0f on disk are others", s.requests, s.written, s.other))
	}
	client, err := w.nodeClient()
	if err != nil {
		return nil, err
	}
	if f.floor, err = bare(ctx, client, w.pods); err != nil {
		return nil, err
	}
	return append(wrong, r.wrong()...), nil
}

// fill makes n pods, starts the daemon, and returns a reader that has seen all their tokens.
func (w *world) fill(ctx context.Context, n int, life time.Duration) (*reader, error) {
	made, err := w.create(ctx, n, life, nil)
	if err != nil {
		return nil, err
	}
	r := newReader(w.root, 2*n)
	r.every = time.Hour // the time of a swap, not of a look: nobody looks all the time while the daemon is at work
	for _, c := range made {
		r.files = append(r.files, filesOf(w.root, c.pod, c.asked)...)
	}
	d, err := w.startDaemon(ctx)
	if err != nil {
		return nil, err
	}
	next := 0
	err = d.await(ctx, "the tokens of all pods", eye, func() (bool, error) {
		for ; next < len(r.files); next++ { // those before are there
			if r.look(r.files[next]); r.files[next].first.IsZero() {
				return false, w.died()
			}
		}
		return true, nil
	})
	r.every = newReader(w.root, 2*n).every
	return r, err
}

// pause lets time pass while the programs live.
func (w *world) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return w.died()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restart ends the daemon and starts another one, on the same root.
func (w *world) restart(ctx context.Context, r *reader) (s restart, err error) {
	before := r.versions()
	if err := w.daemon.stop(); err != nil {
		return s, err
	}
	d, err := w.startDaemon(ctx)
	if err != nil {
		return s, err
	}
	if err := d.ready(ctx); err != nil {
		return s, err
	}
	s.ready = time.Since(d.started)
	var m families
	err = d.await(ctx, "all tokens to be adopted", 200*time.Millisecond, func() (bool, error) {
		m, err = d.scrape()
		return err == nil && m.sum("tokens", "fresh") >= float64(len(r.files)), err
	})
	if err != nil {
		return s, err
	}
	s.adopted = time.Since(d.started)
	s.requests, s.written = m.sum("token_requests_total", ""), m.sum("publishes_total", "written")
	for i, version := range r.versions() {
		if version != before[i] {
			s.other++
		}
	}
	return s, nil
}

// versions are what is on disk now of each file's volume; "" is nothing.
func (r *reader) versions() []string {
	all := make([]string, len(r.files))
	for i, f := range r.files {
		all[i], _, _ = dataLink(f.dir)
	}
	return all
}

// work is the part in which tokens are refreshed and pods come and go. The server makes tokens so short that each is refreshed.
func (f *nodeFigures) work(ctx context.Context, o *options) (wrong []string, err error) {
	w, err := newWorld(ctx, o, "--max-token-expiration", shortLife(o.length, f.pods).String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	r, err := w.fill(ctx, f.pods, vault)
	if err != nil {
		return nil, err
	}
	if err := f.watch(ctx, w, r); err != nil {
		return nil, err
	}
	h, err := w.daemon.lateness(ctx, len(f.refreshed))
	if err != nil {
		return nil, err
	}
	f.metricLate, f.metricNumber = atMost(h, 0.99), float64(h.GetSampleCount())
	wrong = r.wrong()
	if n := int(f.metricNumber); len(f.refreshed) == 0 || n < len(f.refreshed) {
		wrong = append(wrong, fmt.Sprintf("the files show %d refreshes, the daemon's metric %d", len(f.refreshed), n))
	}
	return wrong, nil
}

// shortLife is that of tokens in the part that is watched for so long: all are refreshed in it, at an age of 80 % at most; but
// no more than some 250 a second.
func shortLife(length time.Duration, pods int) time.Duration {
	return max(length*4/5, time.Duration(2*pods)*5*time.Millisecond, 8*time.Second).Truncate(time.Second)
}

// watch looks at the files and at the daemon for o.length, and replaces a pod every second.
func (f *nodeFigures) watch(ctx context.Context, w *world, r *reader) error {
	begun := time.Now()
	look, second := time.NewTimer(0), time.NewTimer(0)
	defer look.Stop()
	defer second.Stop()
	for time.Since(begun) < w.o.length {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C:
			r.sweep()
			look.Reset(r.every)
		case <-second.C:
			second.Reset(time.Second)
			c, err := costOf(w.daemon.cmd.Process.Pid)
			if err != nil {
				return errors.Join(err, w.died())
			}
			f.worked = append(f.worked, c)
			// None comes at the end, where most of the wait for its token would not be watched.
			if time.Since(begun) < w.o.length-2*time.Second {
				if err := w.replace(ctx, r); err != nil {
					return err
				}
			}
		}
	}
	if err := w.awaitLast(ctx, r); err != nil {
		return err
	}
	f.firsts, f.lates = r.firsts(begun), r.lates(begun)
	f.refreshed = slices.Clone(r.done)
	return w.died()
}

// awaitLast looks at the files until each has come, or none of those that are missing will.
func (w *world) awaitLast(ctx context.Context, r *reader) error {
	end := time.Now().Add(hopeless)
	return w.daemon.await(ctx, "the last tokens", r.every, func() (bool, error) {
		r.sweep()
		return !slices.ContainsFunc(r.files, func(f *file) bool { return f.first.IsZero() }) || time.Now().After(end), w.died()
	})
}

// lateness is the daemon's metric, once it has counted so many refreshes, or will not: it counts after a swap.
func (d *daemon) lateness(ctx context.Context, refreshes int) (h *dto.Histogram, err error) {
	end := time.Now().Add(hopeless)
	err = d.await(ctx, "the daemon's metric", 100*time.Millisecond, func() (bool, error) {
		m, err := d.scrape()
		h = m.histogram("refresh_lateness_seconds")
		return int(h.GetSampleCount()) >= refreshes || time.Now().After(end), err
	})
	return h, err
}

// replace takes the oldest pod away and makes another.
func (w *world) replace(ctx context.Context, r *reader) error {
	r.forget(string(w.pods[0].UID))
	if err := w.deletePod(ctx); err != nil {
		return err
	}
	made, err := w.create(ctx, 1, vault, nil)
	if err != nil {
		return err
	}
	r.files = append(r.files, filesOf(w.root, made[0].pod, made[0].asked)...)
	return nil
}
