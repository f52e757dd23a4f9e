package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/rotation"
)

// observed is a root whose tokens somebody else keeps fresh, and a lookout on it.
type observed struct {
	*lookout
	t      *testing.T
	root   string
	signer *signer
	late   []time.Duration
	logged *observer.ObservedLogs
}

func newObserved(t *testing.T) *observed {
	core, logged := observer.New(zap.InfoLevel)
	o := &observed{t: t, root: t.TempDir(), signer: newSigner(t), logged: logged}
	o.lookout = &lookout{
		observation: &observation{rootDir: o.root, grace: 2 * time.Minute, sweep: 30 * time.Second},
		log:         zap.New(core), lives: map[string]rotation.Lifetime{},
		lateness: func(d time.Duration) { o.late = append(o.late, d) },
	}
	return o
}

// put publishes a token of an hour in the volume of that name.
func (o *observed) put(volume string, issued time.Time) {
	o.t.Helper()
	err := o.signer.publish(o.root, "u1", volume, "token", fmt.Sprintf("iat=%d", issued.Unix()))
	if err != nil {
		o.t.Fatal(err)
	}
}

// TestObserved: tokens grow stale and expire between two looks; a refresh is as late as it was issued after the limit of the token
// before it.
func TestObserved(t *testing.T) {
	o := newObserved(t)
	begin := time.Now().Truncate(time.Second)
	if got := o.observe(begin); !got.Looked.IsZero() {
		t.Errorf("observed without a look: %+v", got)
	}
	o.put("a", begin)
	o.put("b", begin.Add(-10*time.Minute))
	if err := os.MkdirAll(filepath.Join(o.root, "pods/u1/volumes/kubernetes.io~projected/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	var watched []string
	o.look(begin, func(dir string) error { watched = append(watched, strings.TrimPrefix(dir, o.root)); return nil })
	const volumes = "/pods/u1/volumes/kubernetes.io~projected"
	if want := []string{"/pods", volumes, volumes + "/a", volumes + "/b", volumes + "/c"}; !slices.Equal(watched, want) {
		t.Errorf("watched: %q, want %q", watched, want)
	}
	for _, c := range []struct {
		after                 time.Duration
		fresh, stale, expired int
		overdue               time.Duration
	}{
		{0, 2, 0, 0, 0}, {40 * time.Minute, 2, 0, 0, 2 * time.Minute}, {40*time.Minute + 1, 1, 1, 0, 2*time.Minute + 1},
		{50*time.Minute - 1, 1, 1, 0, 12*time.Minute - 1}, {50 * time.Minute, 1, 0, 1, 12 * time.Minute}, {time.Hour, 0, 0, 2, 22 * time.Minute},
	} {
		got := o.observe(begin.Add(c.after))
		if got.Tokens[stateFresh] != c.fresh || got.Tokens[stateStale] != c.stale || got.Tokens[stateExpired] != c.expired ||
			got.Tokens[statePending] != 1 || got.Overdue != c.overdue || len(got.Each) != 2 {
			t.Errorf("after %s: %+v", c.after, got)
		}
	}

	watch := func(string) error { return nil }
	o.look(begin, watch)
	o.put("a", begin.Add(49*time.Minute)) // a minute after 48
	o.put("b", begin.Add(30*time.Minute)) // in time
	o.look(begin, watch)
	o.look(begin, watch)
	slices.Sort(o.late)
	if want := []time.Duration{-8 * time.Minute, time.Minute}; !slices.Equal(o.late, want) {
		t.Errorf("lateness: %v, want %v", o.late, want)
	}
}

// TestObservedOfOthers: a token of another cluster and a JWT of another kind, which a secret has put beside the kubelet's, are nobody's to
// refresh: they are in no state, though both have expired.
func TestObservedOfOthers(t *testing.T) {
	o := newObserved(t)
	now := time.Now()
	o.put("ours", now)
	for volume, arg := range map[string]string{"cluster": "uid=", "licence": "sub=acme"} {
		if err := o.signer.publish(o.root, "u1", volume, "token", "age=2h", arg); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		o.look(now, func(string) error { return nil })
	}
	if got := o.observe(now); got.Tokens[stateFresh] != 1 || got.Tokens[stateExpired] != 0 || got.Overdue != 0 || len(got.Each) != 1 || got.Unreadable != 0 {
		t.Errorf("%+v", got)
	}
	if err := o.signer.publish(o.root, "u1", "planted", "token", "age=2h"); err != nil {
		t.Fatal(err)
	}
	o.look(now, func(string) error { return nil })
	if got := o.observe(now); got.Tokens[stateExpired] != 1 {
		t.Errorf("planted: %+v", got)
	}
}

// TestObservedRootIsGone: a root that cannot be read is said once, what was seen of it stays, and its return is said. Nothing is said then
// of watches, of which it has none.
func TestObservedRootIsGone(t *testing.T) {
	o := newObserved(t)
	watch := func(dir string) error {
		if _, err := os.Stat(dir); err != nil {
			return err
		}
		return unix.ENOSPC
	}
	o.put("a", time.Now())
	o.look(time.Now(), watch)
	if err := os.Rename(o.root, o.root+"-away"); err != nil {
		t.Fatal(err)
	}
	o.look(time.Now(), watch)
	o.look(time.Now(), watch)
	if got := o.observe(time.Now()); got.Tokens[stateFresh] != 1 {
		t.Errorf("%+v", got)
	}
	if err := os.Rename(o.root+"-away", o.root); err != nil {
		t.Fatal(err)
	}
	o.look(time.Now(), watch)
	o.look(time.Now(), func(string) error { return unix.EACCES })
	var said []string
	for _, l := range o.logged.All() {
		said = append(said, l.Message)
	}
	want := []string{
		"some directories are not watched, and only looked at now and then; raise fs.inotify.max_user_watches",
		"root cannot be read; trying on", "root can be read again", "all directories are watched again",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said: %q", said)
	}
}

// TestObservedVolumeIsUnreadable: a volume that cannot be read is said once, as is that it can again, with its pod's name, which another
// volume's token says, or said before.
func TestObservedVolumeIsUnreadable(t *testing.T) {
	o := newObserved(t)
	watch := func(string) error { return nil }
	o.put("a", time.Now())
	o.put("b", time.Now())
	o.look(time.Now(), watch)
	overfull := func(volume string) string {
		return filepath.Join(o.root, "pods/u1/volumes/kubernetes.io~projected", volume, "..data/overfull")
	}
	for _, volume := range []string{"a", "b"} {
		if err := os.Mkdir(overfull(volume), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range atomicwriter.MaxVersion / atomicwriter.MaxFile { // sparse; of a good size each
			name := filepath.Join(overfull(volume), fmt.Sprint(i))
			if err := errors.Join(os.WriteFile(name, nil, 0o600), os.Truncate(name, atomicwriter.MaxFile)); err != nil {
				t.Fatal(err)
			}
		}
		o.look(time.Now(), watch)
		o.look(time.Now(), watch)
	}
	for _, volume := range []string{"a", "b"} {
		if err := os.RemoveAll(overfull(volume)); err != nil {
			t.Fatal(err)
		}
		o.look(time.Now(), watch)
	}
	var said []string
	for _, l := range o.logged.All() {
		m := l.ContextMap()
		said = append(said, fmt.Sprint(l.Level, " ", m["namespace"], "/", m["pod"], " ", m["pod_uid"], " ", m["volume"], ": ", l.Message))
	}
	const unread, again = ": volume cannot be read", ": volume can be read again, or is gone"
	want := []string{"warn team-a/web-0 u1 a" + unread, "warn team-a/web-0 u1 b" + unread, "info team-a/web-0 u1 a" + again, "info team-a/web-0 u1 b" + again}
	if !slices.Equal(said, want) {
		t.Errorf("said: %q", said)
	}
}

// TestObservedBlindly: that directories are not watched is said once, and that all are again.
func TestObservedBlindly(t *testing.T) {
	o := newObserved(t)
	o.put("a", time.Now())
	for _, err := range []error{syscall.ENOSPC, syscall.ENOSPC, nil, nil} {
		o.look(time.Now(), func(string) error { return err })
	}
	var said []string
	for _, l := range o.logged.All() {
		said = append(said, l.Message[:strings.Index(l.Message+",", ",")])
	}
	if want := []string{"some directories are not watched", "all directories are watched again"}; !slices.Equal(said, want) {
		t.Errorf("said: %q", said)
	}
}

// TestObserve: the command sees a change without a sweep, and serves what each token is only to who asked for that.
func TestObserve(t *testing.T) {
	for _, perToken := range []bool{false, true} {
		core, logged := observer.New(zap.InfoLevel)
		o := newObserved(t)
		o.put("a", time.Now().Add(-50*time.Minute))
		c := &observation{
			rootDir: o.root, sweep: time.Hour, grace: time.Minute, perToken: perToken,
			serving: serving{metricsAddress: "127.0.0.1:0", healthAddress: "127.0.0.1:0"},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.run(ctx, zap.New(core)) }()
		await(t, logged, "serving health")
		text := awaitScrape(t, logged, `token_projector_tokens{state="stale"} 1`)
		if got := strings.Contains(text, `pod="web-0"`); got != perToken {
			t.Errorf("with per-token metrics %v: %s", perToken, text)
		}
		o.put("a", time.Now())
		text = awaitScrape(t, logged, `token_projector_tokens{state="fresh"} 1`)
		for _, part := range []string{"token_projector_refresh_lateness_seconds_count 1\n", "token_projector_refresh_overdue_seconds 0\n", "token_projector_watch_degraded 0\n"} {
			if !strings.Contains(text, part) {
				t.Errorf("no %q in %s", part, text)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// await waits until that was said, and returns the address in it.
func await(t *testing.T, logged *observer.ObservedLogs, message string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, l := range logged.FilterMessage(message).All() {
			return l.ContextMap()["address"].(string)
		}
	}
	t.Fatalf("never said: %s", message)
	return ""
}

// awaitScrape waits until the metrics have that line.
func awaitScrape(t *testing.T, logged *observer.ObservedLogs, line string) string {
	t.Helper()
	address := await(t, logged, "serving metrics")
	text := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if text = string(body); strings.Contains(text, line+"\n") {
			return text
		}
	}
	t.Fatalf("never scraped %s: %s", line, text)
	return ""
}
