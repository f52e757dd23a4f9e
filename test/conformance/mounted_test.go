//go:build e2e

package conformance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	josejwt "github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/test/cases"
)

// reader reads tokens as a process of a container would: by name, below the container's root, with the rights of its user
// and no others, again and again.
type reader struct {
	root  *os.Root
	user  int
	files []string
	stop  func() // waits; a second call does nothing

	mu     sync.Mutex          // guards what follows
	seen   map[string][]string // by file, each token once, in the order of reading
	faults map[string]error    // by file, the first
}

// startReader starts a reader, which ends with the test at the latest. Every file must be there by now.
func startReader(t *testing.T, dir string, user int, files []string) *reader {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{root: root, user: user, files: files, seen: map[string][]string{}, faults: map[string]error{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	r.stop = func() {
		cancel()
		<-done
		root.Close()
	}
	t.Cleanup(r.stop)
	return r
}

func (r *reader) run(ctx context.Context) {
	defer become(r.user)()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, name := range r.files {
			content, err := r.root.ReadFile(name)
			r.take(name, string(content), errors.Join(err, unusable(content, time.Now())))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// become gives the calling goroutine the rights on files that a user has, who is in no group, until restore is called. A thread
// may not end with it: the kernel would kill the programs that it has started.
func become(user int) (restore func()) {
	runtime.LockOSThread()
	groups, err := unix.Getgroups()
	if err != nil {
		panic(err)
	}
	// No libc stands between: these are this thread's alone. Going from 0 to another drops the capabilities that matter.
	take := func(user int, groups []int) {
		if err := errors.Join(unix.Setgroups(groups), unix.Setfsgid(user), unix.Setfsuid(user)); err != nil {
			panic(err)
		}
	}
	take(user, nil)
	return func() {
		take(0, groups)
		runtime.UnlockOSThread()
	}
}

func (r *reader) take(name, token string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch have := r.seen[name]; {
	case err != nil && r.faults[name] == nil:
		r.faults[name] = fmt.Errorf("%s at %v: %w", name, time.Now().Format(time.TimeOnly), err)
	case err != nil:
	case len(have) == 0 || have[len(have)-1] != token:
		r.seen[name] = append(have, token)
	}
}

// rotations counts the tokens that were read in the place of another.
func (r *reader) rotations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, tokens := range r.seen {
		n += len(tokens) - 1
	}
	return n
}

// result is what has been read, and what went wrong.
func (r *reader) result() (map[string][]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.seen), errors.Join(slices.Collect(maps.Values(r.faults))...)
}

// unusable says why a client can do nothing with what it has read.
func unusable(content []byte, now time.Time) error {
	token, err := josejwt.ParseSigned(string(content), []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return fmt.Errorf("no token of %d bytes", len(content))
	}
	var claims josejwt.Claims
	server, err := plane.Server(context.Background(), cases.Usual, false)
	if err != nil {
		return err
	}
	if err := token.Claims(server.Key(jose.RS256).Public(), &claims); err != nil {
		return fmt.Errorf("a torn token of %d bytes: %w", len(content), err)
	}
	if end := claims.Expiry.Time(); !end.After(now) {
		return fmt.Errorf("it expired at %v", end)
	}
	return nil
}

// readAs reads a file below a directory once, with a user's rights.
func readAs(user int, dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	defer become(user)()
	return root.ReadFile(name)
}

// A reader must notice a file that is missing, torn, expired or not for its user, and that a token has been replaced.
func TestBesideKubeletReaderSeesFaults(t *testing.T) {
	const nobody = 65534
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(file+"~", []byte(content), mode), os.Rename(file+"~", file)); err != nil {
			t.Fatal(err)
		}
	}
	good := signedToken(t, time.Now().Add(time.Hour))
	write("good", good, 0o644)
	write("torn", good[:len(good)/2], 0o644)
	write("empty", "", 0o644)
	write("expired", signedToken(t, time.Now().Add(-time.Second)), 0o644)
	write("private", good, 0o600)
	r := startReader(t, dir, nobody, []string{"missing", "torn", "good", "empty", "expired", "private"})
	for _, name := range []string{"missing", "torn", "empty", "expired", "private"} {
		eventually(t, func() error {
			if _, err := r.result(); err == nil || !strings.Contains(err.Error(), name+" at ") {
				return fmt.Errorf("%s was not noticed: %v", name, err)
			}
			return nil
		})
		if _, err := readAs(nobody, dir, name); (err == nil) == (name == "missing" || name == "private") {
			t.Errorf("%s, read once: %v", name, err)
		}
	}
	if n := r.rotations(); n != 0 {
		t.Errorf("%d rotations before the first", n)
	}
	write("good", signedToken(t, time.Now().Add(2*time.Hour)), 0o644)
	eventually(t, func() error {
		if r.rotations() != 1 {
			return errors.New("a rotation was not noticed")
		}
		return nil
	})
	if seen, err := r.result(); len(seen) != 1 || len(seen["good"]) != 2 || strings.Contains(err.Error(), "good at ") {
		t.Errorf("tokens of %d files, %d of the good one; %v", len(seen), len(seen["good"]), err)
	}
}

func signedToken(t *testing.T, expiry time.Time) string {
	t.Helper()
	server, err := plane.Server(t.Context(), cases.Usual, false)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: server.Key(jose.RS256)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := josejwt.Signed(signer).Claims(josejwt.Claims{Expiry: josejwt.NewNumericDate(expiry)}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}
