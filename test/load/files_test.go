package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const uid = "5f0a"

// signed is a token of a pod.
func signed(t *testing.T, pod string, issued time.Time, life time.Duration) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{
		"iat": issued.Unix(), "exp": issued.Add(life).Unix(), "kubernetes.io": map[string]any{"pod": map[string]any{"uid": pod}},
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return []byte(token)
}

// volume is a directory as the daemon makes it, and a reader of it.
type volume struct {
	t   *testing.T
	dir string
	r   *reader
}

func newVolume(t *testing.T, now time.Time) *volume {
	v := &volume{t: t, dir: t.TempDir(), r: newReader("", 1)}
	v.r.files = []*file{{uid: uid, dir: v.dir, name: "token", asked: now}}
	return v
}

func (v *volume) must(err error) {
	v.t.Helper()
	if err != nil {
		v.t.Fatal(err)
	}
}

// publish swaps in a version and has the reader look.
func (v *volume) publish(version string, token []byte) {
	v.t.Helper()
	v.must(os.Mkdir(filepath.Join(v.dir, version), 0o755))
	v.must(os.WriteFile(filepath.Join(v.dir, version, "token"), token, 0o600))
	v.must(os.Symlink(version, filepath.Join(v.dir, "..tmp")))
	v.must(os.Rename(filepath.Join(v.dir, "..tmp"), filepath.Join(v.dir, "..data")))
	if _, err := os.Lstat(filepath.Join(v.dir, "token")); err != nil {
		v.must(os.Symlink("..data/token", filepath.Join(v.dir, "token")))
	}
	v.r.sweep()
}

// TestReaderSees: each kind of fault is caught in a volume whose first token was good, and nothing in one that stays so.
func TestReaderSees(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		spoil func(*volume)
		want  []string
	}{
		"good":    {func(v *volume) { v.publish("..2", signed(t, uid, now, time.Hour)) }, nil},
		"expired": {func(v *volume) { v.publish("..2", signed(t, uid, now.Add(-time.Hour), time.Hour)) }, []string{"1 token files were expired"}},
		"expires": {func(v *volume) {
			v.r.files[0].claims.Lifetime.Expires = now // as if time had passed
			v.r.sweep()
		}, []string{"1 token files were expired"}},
		"torn":    {func(v *volume) { v.publish("..2", signed(t, uid, now, time.Hour)[:100]) }, []string{"1 token files were no token"}},
		"empty":   {func(v *volume) { v.publish("..2", nil) }, []string{"1 token files were no token"}},
		"foreign": {func(v *volume) { v.publish("..2", signed(t, "another", now, time.Hour)) }, []string{"1 token files were another pod's"}},
		"no file": {func(v *volume) { v.must(os.Remove(filepath.Join(v.dir, "token"))); v.publish2("..2") }, []string{"1 token files were missing though it was there"}},
		"no volume": {func(v *volume) {
			v.must(os.Remove(filepath.Join(v.dir, "..data")))
			v.r.sweep()
		}, []string{"1 token files were missing though it was there"}},
		"forgotten": {func(v *volume) {
			v.publish("..2", nil)
			v.r.forget(uid)
		}, []string{"1 token files were no token"}},
	} {
		v := newVolume(t, now)
		if got := v.r.wrong(); !slices.Equal(got, []string{"1 of 1 token files never came"}) {
			t.Errorf("%s: before the first token: %q", name, got)
		}
		v.publish("..1", signed(t, uid, now, time.Hour))
		if got := v.r.wrong(); got != nil {
			t.Errorf("%s: after the first token: %q", name, got)
		}
		c.spoil(v)
		if got := v.r.wrong(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// publish2 swaps in a version without a file.
func (v *volume) publish2(version string) {
	v.t.Helper()
	v.must(os.Mkdir(filepath.Join(v.dir, version), 0o755))
	v.must(os.Symlink(version, filepath.Join(v.dir, "..tmp")))
	v.must(os.Rename(filepath.Join(v.dir, "..tmp"), filepath.Join(v.dir, "..data")))
	v.r.sweep()
}

// TestLateness: of a refresh, by what was read of both tokens; another version of the same token is none.
func TestLateness(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, c := range []struct {
		issued time.Duration // of the first token, ago
		late   time.Duration // at now
	}{
		{400 * time.Second, -80 * time.Second}, {480 * time.Second, 0}, {500 * time.Second, 20 * time.Second},
	} {
		v := newVolume(t, now)
		first := signed(t, uid, now.Add(-c.issued), 600*time.Second)
		v.publish("..1", first)
		v.publish("..2", first)
		if len(v.r.done) > 0 {
			t.Fatalf("%v old: a version with the same token is a refresh", c.issued)
		}
		v.publish("..3", signed(t, uid, now, 600*time.Second))
		if len(v.r.done) != 1 {
			t.Fatalf("%v old: %d refreshes, want 1", c.issued, len(v.r.done))
		}
		// Of the clock's second and of this test's own pace.
		if got := v.r.done[0].late - c.late; got < 0 || got > 30*time.Second {
			t.Errorf("%v old: late by %v, want %v", c.issued, v.r.done[0].late, c.late)
		}
	}
	if got := limit(1000 * time.Hour); got != 24*time.Hour {
		t.Errorf("a long-lived token's limit is %v", got)
	}
}

// TestTimeOfASwap: a reader that looks seldom takes the file system's word for the time.
func TestTimeOfASwap(t *testing.T) {
	t.Parallel()
	v := newVolume(t, time.Now())
	v.publish("..1", signed(t, uid, time.Now(), time.Hour))
	if v.r.files[0].first.Before(v.r.files[0].asked) {
		t.Error("what was seen was there before it was asked for")
	}
	_, swapped, err := dataLink(v.dir)
	v.must(err)
	v.r = newReader("", 20_000)
	v.r.files = []*file{{uid: uid, dir: v.dir, name: "token"}}
	v.r.sweep()
	if got := v.r.files[0].first; !got.Equal(swapped) {
		t.Errorf("there at %v, swapped in at %v", got, swapped)
	}
}
