package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// pressed is what a server that grants so many TokenRequests per second made of a node.
type pressed struct {
	pods    int
	life    time.Duration
	first   time.Duration // from the daemon's start to the last of the first tokens
	out     time.Duration // length of the outage
	due     int           // tokens beyond 80 % of their lives at its end
	news    []time.Duration
	renewed []time.Duration // from the end of the outage to each token that was due then
	late    []time.Duration // of these, after 80 % of the lives
	left    time.Duration   // least life that one had left when it was replaced
	busy    time.Duration   // from the end of the outage until all these are there
	served  int             // tokens that came on disk meanwhile: others are due before 80 %
	granted float64
	refused float64
	expired int // token files that were seen expired
}

// Parts of the time of the whole, at which the server goes away, unless the first tokens are not there yet, and comes back. Tokens
// live as long as the whole, ten minutes at most: at its return, those of the beginning are beyond 80 %.
const (
	goes  = 0.15
	comes = 0.84
)

// playPressed measures each number of pods, and prints a column for each.
func playPressed(ctx context.Context, o *options, out io.Writer) error {
	var all []*pressed
	var wrong []string
	for _, n := range o.pods {
		p := &pressed{pods: n, life: min(o.length, vault).Truncate(time.Second), left: time.Hour}
		w, err := p.play(ctx, o)
		if err != nil {
			return fmt.Errorf("%d pods: %w", n, err)
		}
		for _, w := range w {
			wrong = append(wrong, fmt.Sprintf("%d pods: %s", n, w))
		}
		all = append(all, p)
	}
	printPressed(out, o, all)
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n  "))
	}
	return nil
}

func (p *pressed) play(ctx context.Context, o *options) (wrong []string, err error) {
	w, err := newWorld(ctx, o, "--token-requests-per-second", fmt.Sprint(o.rate), "--max-token-expiration", p.life.String())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	w.single = true
	if err := proveExpiryIsSeen(w.dir); err != nil {
		return nil, err
	}
	r, err := w.fill(ctx, p.pods, vault)
	if err != nil {
		return nil, err
	}
	begun := w.daemon.started
	p.first = time.Since(begun)
	if err := r.readUntil(ctx, w, later(begun.Add(part(o.length, goes)), time.Now())); err != nil {
		return nil, err
	}
	if err := p.pressAgain(ctx, w, r, begun); err != nil {
		return nil, err
	}
	for _, f := range slices.Concat(r.files, r.gone) {
		if f.faults[expired] > 0 {
			p.expired++
		}
	}
	return r.wrong(), nil
}

func part(whole time.Duration, of float64) time.Duration { return time.Duration(of * float64(whole)) }

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// pressAgain has the server out until tokens are due, and then pods come, and all of it wants tokens at once.
func (p *pressed) pressAgain(ctx context.Context, w *world, r *reader, begun time.Time) error {
	before, err := w.daemon.scrape()
	if err != nil {
		return err
	}
	went := time.Now()
	if err := w.server.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	err = r.readUntil(ctx, w, begun.Add(part(p.life, comes)))
	if err := errors.Join(err, w.server.cmd.Process.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	back := time.Now()
	p.out = back.Sub(went)
	due := map[*file]bool{}
	for _, f := range r.files {
		if back.After(f.claims.Lifetime.Limit()) {
			due[f] = true
		}
	}
	p.due = len(due)
	made, err := w.create(ctx, w.o.fresh, vault, nil)
	if err != nil {
		return err
	}
	for _, c := range made {
		r.files = append(r.files, filesOf(w.root, c.pod, c.asked)...)
	}
	if err := r.readUntil(ctx, w, later(begun.Add(w.o.length), back.Add(time.Second))); err != nil {
		return err
	}
	p.news = r.firsts(back)
	p.judge(r, due, back)
	p.serve(r, back)
	after, err := w.daemon.scrape()
	if err != nil {
		return err
	}
	sent := after.sum("token_requests_total", "") - before.sum("token_requests_total", "")
	p.granted = after.sum("token_requests_total", "201") - before.sum("token_requests_total", "201")
	p.refused = sent - p.granted
	return nil
}

// judge takes in the first refresh of each token that was due when the server came back.
func (p *pressed) judge(r *reader, due map[*file]bool, back time.Time) {
	for _, d := range r.done {
		if !due[d.of] || d.at.Before(back) {
			continue
		}
		delete(due, d.of)
		p.renewed, p.late = append(p.renewed, d.at.Sub(back)), append(p.late, d.late)
		p.left = min(p.left, d.life-limit(d.life)-d.late)
	}
	slices.Sort(p.renewed)
	slices.Sort(p.late)
}

// serve counts what the node got while it was busy.
func (p *pressed) serve(r *reader, back time.Time) {
	p.busy = percentile(p.renewed, 1)
	for _, f := range r.files {
		if f.first.After(back) {
			p.busy = max(p.busy, f.first.Sub(back))
			p.served++
		}
	}
	for _, d := range r.done {
		if d.at.After(back) && !d.at.After(back.Add(p.busy)) {
			p.served++
		}
	}
}

// readUntil looks at the files again and again.
func (r *reader) readUntil(ctx context.Context, w *world, end time.Time) error {
	for time.Now().Before(end) {
		r.sweep()
		if err := w.pause(ctx, r.every); err != nil {
			return err
		}
	}
	return nil
}

// proveExpiryIsSeen plants a token that has expired beside one that has not.
func proveExpiryIsSeen(dir string) error {
	r := newReader(dir, 2)
	for name, life := range map[string]time.Duration{"planted-good": time.Hour, "planted-expired": time.Minute} {
		volume := filepath.Join(dir, name)
		claims := fmt.Sprintf(`{"iat":%d,"exp":%d,"kubernetes.io":{"pod":{"uid":%q}}}`,
			time.Now().Add(-2*time.Minute).Unix(), time.Now().Add(life-2*time.Minute).Unix(), name)
		encode := base64.RawURLEncoding.EncodeToString
		token := encode([]byte(`{"alg":"ES256"}`)) + "." + encode([]byte(claims)) + "." + encode(make([]byte, 64))
		err := errors.Join(os.MkdirAll(filepath.Join(volume, "..1"), 0o700), os.Symlink("..1", filepath.Join(volume, "..data")),
			os.Symlink("..data/token", filepath.Join(volume, "token")), os.WriteFile(filepath.Join(volume, "..1", "token"), []byte(token), 0o600))
		if err != nil {
			return fmt.Errorf("plant a token: %w", err)
		}
		r.files = append(r.files, &file{uid: name, dir: volume, name: "token"})
	}
	r.sweep()
	if got := r.wrong(); len(got) != 1 || got[0] != fmt.Sprintf("1 token files were %s", expired) {
		return fmt.Errorf("of a planted token that has expired, the reader says %q", got)
	}
	return nil
}

func printPressed(out io.Writer, o *options, all []*pressed) {
	fmt.Fprintf(out, "\n%d TokenRequests per second; one token per pod, of %v.\n\n", o.rate, all[0].life)
	line := func(name string, cell func(*pressed) string) {
		cells := []string{name}
		for _, p := range all {
			cells = append(cells, cell(p))
		}
		row(out, cells...)
	}
	ideal := func(n int) float64 { return float64(max(0, n-o.rate)) / float64(o.rate) } // a second's worth goes at once
	line("figure", func(p *pressed) string { return fmt.Sprintf("%d pods", p.pods) })
	row(out, slices.Repeat([]string{"---"}, len(all)+1)...)
	line("all come at once: s to the last token; at best", func(p *pressed) string {
		return fmt.Sprintf("%.1f; %.1f", p.first.Seconds(), ideal(p.pods))
	})
	line("then the server is out, s; tokens beyond 80 % at its return, new pods then", func(p *pressed) string {
		return fmt.Sprintf("%.0f; %d, %d", p.out.Seconds(), p.due, o.fresh)
	})
	line("POST of a new pod to its token, s: 50 %, 99 %, worst", func(p *pressed) string { return seconds(p.news, 0.5, 0.99, 1) })
	line("return of the server to the refresh of a token beyond 80 %, s: 50 %, 99 %, worst", func(p *pressed) string {
		return seconds(p.renewed, 0.5, 0.99, 1)
	})
	line("their lateness, s: 50 %, 99 %, worst; least life left, s", func(p *pressed) string {
		return fmt.Sprintf("%s; %.1f", seconds(p.late, 0.5, 0.99, 1), p.left.Seconds())
	})
	line("return of the server until all these are there, s; tokens that come on disk meanwhile; s for these at best", func(p *pressed) string {
		return fmt.Sprintf("%.1f; %d; %.1f", p.busy.Seconds(), p.served, ideal(p.served))
	})
	line("TokenRequests from the outage on: granted, not granted", func(p *pressed) string {
		return fmt.Sprintf("%.0f, %.0f", p.granted, p.refused)
	})
	line("tokens seen expired", func(p *pressed) string { return fmt.Sprint(p.expired) })
}
