package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const (
	uid  = "6a1c7e0e-0000-4000-8000-000000000001"
	life = 10 * time.Second
)

// epoch is when the run of these tests begins.
var epoch = time.Unix(1_800_000_000, 0)

func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// jwt is a token of uid's pod, issued at a time, of one lifetime.
func jwt(issued time.Time) []byte { return jwtWith(uid, "ES256", 64, issued, issued.Add(life), 0) }

func jwtWith(podUID, alg string, signature int, issued, exp time.Time, warnAfter int64) []byte {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	warn := ""
	if warnAfter > 0 {
		warn = fmt.Sprintf(`,"warnafter":%d`, warnAfter)
	}
	return []byte(part(`{"alg":"`+alg+`","kid":"k"}`) + "." +
		part(fmt.Sprintf(`{"exp":%d,"iat":%d,"kubernetes.io":{"pod":{"name":"p","uid":%q}%s}}`, exp.Unix(), issued.Unix(), podUID, warn)) +
		"." + part(strings.Repeat("s", signature)))
}

func newTrack(pod string) *track {
	return &track{pod: pod, uid: uid, volume: "v", path: "token", since: epoch, fromStart: true}
}

// feed reads a healthy file until the end: a new token every 8 s, from the
// first second on, as the daemon would have it.
func feed(t *testing.T, tr *track, from, to float64) {
	t.Helper()
	for s := from; s < to; s += 0.5 {
		issued := at(from + 8*float64(int((s-from)/8)))
		if line := tr.read(at(s), jwt(issued)); strings.Contains(line, "ERROR") {
			t.Fatalf("a healthy read at %vs: %s", s, line)
		}
	}
}

// healthyRun is what a good run of 30 s shows.
func healthyRun(t *testing.T) []*track {
	t.Helper()
	names := append([]string{"demo/comes-and-goes-1"}, wantPods...)
	var tracks []*track
	for _, name := range names {
		tr := newTrack(name)
		feed(t, tr, 1, 30)
		tracks = append(tracks, tr)
	}
	return tracks
}

// wantOnly asserts that the verdict is one finding that has every given word.
func wantOnly(t *testing.T, wrong []string, words ...string) {
	t.Helper()
	if len(wrong) != 1 {
		t.Fatalf("%d findings, want 1 with %q: %q", len(wrong), words, wrong)
	}
	for _, w := range words {
		if !strings.Contains(wrong[0], w) {
			t.Errorf("finding %q lacks %q", wrong[0], w)
		}
	}
}

func TestHealthyRunPasses(t *testing.T) {
	tracks := healthyRun(t)
	if wrong := judge(tracks, at(30), 30*time.Second); len(wrong) != 0 {
		t.Errorf("%q", wrong)
	}
	if got, want := summarize(tracks), "4 token files of 1 pods rotated 12 times in all; 232 reads, none failed, torn or expired"; got != want {
		t.Errorf("summary %q, want %q", got, want)
	}
}

func TestPlantedFaultsAreCaught(t *testing.T) {
	whole := jwt(at(20))
	for name, c := range map[string]struct {
		plant func(tr *track) string
		want  fault
	}{
		"expired":         {func(tr *track) string { return tr.read(at(31), jwt(at(21))) }, expired},
		"long expired":    {func(tr *track) string { return tr.read(at(31), jwt(at(2))) }, expired},
		"missing":         {func(tr *track) string { return tr.unreadable(at(31), errors.New("no such file")) }, missing},
		"empty":           {func(tr *track) string { return tr.read(at(31), nil) }, torn},
		"cut by one byte": {func(tr *track) string { return tr.read(at(31), whole[:len(whole)-1]) }, torn},
		"cut in half":     {func(tr *track) string { return tr.read(at(31), whole[:len(whole)/2]) }, torn},
		"doubled":         {func(tr *track) string { return tr.read(at(31), append(bytes.Clone(whole), whole...)) }, torn},
		"a fourth part":   {func(tr *track) string { return tr.read(at(31), append(bytes.Clone(whole), ".x"...)) }, torn},
		"zeros":           {func(tr *track) string { return tr.read(at(31), make([]byte, len(whole))) }, torn},
		"another pod's": {func(tr *track) string {
			return tr.read(at(31), jwtWith("other", "ES256", 64, at(30), at(40), 0))
		}, foreign},
	} {
		t.Run(name, func(t *testing.T) {
			tracks := healthyRun(t)
			line := c.plant(tracks[0])
			if !strings.HasPrefix(line, "ERROR ") || !strings.Contains(line, string(c.want)) {
				t.Errorf("printed %q, want an error: %s", line, c.want)
			}
			for _, part := range strings.Split(string(whole), ".") {
				if strings.Contains(line, part) {
					t.Error("the token is in the line")
				}
			}
			if again := c.plant(tracks[0]); again != "" {
				t.Errorf("printed again: %q", again)
			}
			if line := tracks[0].read(at(31), jwt(at(30))); strings.Contains(line, "ERROR") {
				t.Errorf("a good read after it: %q", line)
			}
			if line := c.plant(tracks[0]); line == "" {
				t.Error("the same fault after a good read is not printed")
			}
			wantOnly(t, judge(tracks, at(31), 30*time.Second), string(c.want), "comes-and-goes-1", "3 reads")
		})
	}
}

func TestExpiryIsExact(t *testing.T) {
	end := at(10)
	for _, c := range []struct {
		now  time.Time
		want fault
	}{{end.Add(-time.Nanosecond), ""}, {end, expired}, {end.Add(time.Nanosecond), expired}} {
		tr := newTrack("demo/web")
		tr.read(c.now, jwt(at(0)))
		if tr.trouble != c.want {
			t.Errorf("%v after exp: %q, want %q", c.now.Sub(end), tr.trouble, c.want)
		}
	}
}

func TestWarnAfterIsTheEnd(t *testing.T) {
	tr := newTrack("demo/web")
	year := jwtWith(uid, "RS256", 256, at(0), at(365*24*3600), at(10).Unix())
	if line := tr.read(at(9.999), year); strings.Contains(line, "ERROR") || tr.lifetime != life {
		t.Errorf("%q, lifetime %v", line, tr.lifetime)
	}
	if line := tr.read(at(10), year); !strings.Contains(line, "ERROR") {
		t.Errorf("%q, want expired by warnafter", line)
	}
}

func TestRotations(t *testing.T) {
	for name, c := range map[string]struct {
		from, to  float64
		rotations int
		ended     bool
		length    time.Duration
		want      int
	}{
		"whole run":                          {1, 30, 2, false, 30 * time.Second, 2},
		"whole run, late first token":        {9, 30, 1, false, 30 * time.Second, 2},
		"whole run, very late first token":   {15, 30, 1, false, 30 * time.Second, 2},
		"longer run":                         {0, 65, 6, false, 65 * time.Second, 6},
		"too short a run for two":            {0, 15, 1, false, 15 * time.Second, 1},
		"a bit less than three lifetimes":    {15, 29.9, 1, false, 29900 * time.Millisecond, 1},
		"two lifetimes less a bit, ended":    {0, 19.9, 1, true, 30 * time.Second, 1},
		"two lifetimes, ended":               {0, 20, 2, true, 30 * time.Second, 2},
		"shorter than a lifetime, ended":     {0, 9.9, 0, true, 30 * time.Second, 0},
		"until Ctrl-C after three and a bit": {0, 31, 3, false, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newTrack("demo/web")
			tr.first, tr.lifetime, tr.rotations = at(c.from), life, c.rotations
			now := at(c.to)
			if c.ended {
				tr.until, now = at(c.to), at(c.to+100)
			}
			if got := tr.wantRotations(now, c.length); got != c.want {
				t.Errorf("wants %d rotations, should want %d", got, c.want)
			}
			enough := c.rotations >= c.want
			if wrong := tr.verdict(now, c.length); (len(wrong) == 0) != enough {
				t.Errorf("%d of %d rotations: %q", c.rotations, c.want, wrong)
			}
			tr.rotations = c.want - 1
			if c.want > 0 {
				wantOnly(t, tr.verdict(now, c.length), "rotated", fmt.Sprintf("want %d", c.want))
			}
		})
	}
}

func TestOnlyNewBytesAreARotation(t *testing.T) {
	tr := newTrack("demo/web")
	for _, c := range []struct {
		now, issued float64
		line        string
	}{
		{1, 0, "appeared"}, {2, 0, ""}, {8, 8, "rotated"}, {9, 8, ""}, {16.5, 16, "rotated"},
	} {
		line := tr.read(at(c.now), jwt(at(c.issued)))
		if !strings.HasPrefix(line, c.line) || (line == "") != (c.line == "") {
			t.Errorf("at %vs: %q, want %q", c.now, line, c.line)
		}
	}
	if tr.rotations != 2 || tr.reads != 5 {
		t.Errorf("%d rotations in %d reads, want 2 in 5", tr.rotations, tr.reads)
	}
}

func TestLateTokenIsCaught(t *testing.T) {
	tr := newTrack("demo/web")
	absent := errors.New("no such file")
	if line := tr.unreadable(epoch.Add(appearWithin), absent); line != "" {
		t.Errorf("still in time: %q", line)
	}
	if line := tr.unreadable(epoch.Add(appearWithin+1), absent); !strings.Contains(line, string(late)) {
		t.Errorf("too late: %q", line)
	}
	wantOnly(t, tr.verdict(at(11), 0), string(late))
}

func TestRunMustHaveSeenThePods(t *testing.T) {
	for i, pod := range wantPods {
		tracks := healthyRun(t)
		tracks[i+1].pod = "demo/comes-and-goes-2"
		wantOnly(t, judge(tracks, at(30), 30*time.Second), pod)
		if wrong := judge(tracks, at(30), 0); len(wrong) != 0 {
			t.Errorf("a run until Ctrl-C demands pods: %q", wrong)
		}
	}
	wantOnly(t, judge(healthyRun(t)[1:], at(30), 30*time.Second), "only 3 token files")
	if wrong := judge(nil, at(30), 30*time.Second); len(wrong) != 1+len(wantPods) {
		t.Errorf("nothing at all was read: %q", wrong)
	}
}

func TestParseSignatureLengths(t *testing.T) {
	for _, c := range []struct {
		alg    string
		length int
		ok     bool
	}{
		{"ES256", 64, true}, {"ES256", 63, false}, {"ES256", 65, false}, {"RS256", 256, true},
		{"RS256", 512, true}, {"RS256", 255, false}, {"none", 0, false}, {"", 64, false},
	} {
		_, err := parse(jwtWith(uid, c.alg, c.length, at(0), at(10), 0))
		if (err == nil) != c.ok {
			t.Errorf("%q with %d bytes: %v, want ok=%v", c.alg, c.length, err, c.ok)
		}
	}
	if _, err := parse(jwtWith(uid, "ES256", 64, at(10), at(10), 0)); err == nil {
		t.Error("a token of no lifetime passes")
	}
}
