package projector

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestAccountUID: one GET, of what the server's cache has.
func TestAccountUID(t *testing.T) {
	var asked []string
	lookup := NewAccountUID(clientOf(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.String())
		reply(w, 200, &corev1.ServiceAccount{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "app", UID: "account-1"},
		})
	}), time.Minute)
	uid, err := lookup(t.Context(), "demo", "app")
	if err != nil || uid != "account-1" {
		t.Errorf("%q, %v", uid, err)
	}
	if want := "GET /api/v1/namespaces/demo/serviceaccounts/app?resourceVersion=0"; len(asked) != 1 || asked[0] != want {
		t.Errorf("asked %q", asked)
	}
}

// TestAccountUIDFails: the code tells what has happened, and nothing is tried twice.
func TestAccountUIDFails(t *testing.T) {
	for _, code := range []int{401, 403, 404, 429, 500, 503} {
		calls := 0
		lookup := NewAccountUID(clientOf(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.Header().Set("Retry-After", "0") // the client's own retries would heed it
			reply(w, code, metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Message: "no, " + altered(nil)})
		}), time.Minute)
		uid, err := lookup(t.Context(), "demo", "app")
		if e := asMintError(err); uid != "" || e.Code != code || e.Message != "no, [token]" || calls != 1 {
			t.Errorf("%d: %q, %+v after %d requests", code, uid, e, calls)
		}
	}
	hang := make(chan struct{})
	defer close(hang)
	lookup := NewAccountUID(clientOf(t, func(_ http.ResponseWriter, r *http.Request) { hold(hang, r) }), 100*time.Millisecond)
	if uid, err := lookup(t.Context(), "demo", "app"); err == nil || uid != "" || asMintError(err).Code != 0 {
		t.Errorf("of a server that hangs: %q, %v", uid, err)
	}
}

// TestAccountMadeAnewOnDisk runs a Projector on real files, in virtual time: within five
// minutes of the worst moment the new account's token is there, and a reader never misses
// one. The look-ups of another account hang until they are given up; its tokens are in time.
func TestAccountMadeAnewOnDisk(t *testing.T) {
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		root := openTestRoot(t, dir)
		defer root.Close()
		server := &accountServer{}
		issue := &issuer{now: time.Now, took: 20 * time.Millisecond}
		p, err := New(Config{
			NodeName: "node", Root: root, NoWatches: true, AccountUID: server.lookup,
			Mint: func(ctx context.Context, r Request) (Minted, error) { return server.mint(ctx, r, issue) },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- p.Run(ctx) }()
		p.Replace([]Wish{Desired(accountPod(0, 0, 3600), SelectAll), Desired(accountPod(1, 1, 3600), SelectAll)})
		read := func(n int) Claims { return readClaims(t, filepath.Join(root.Path(extra(n)), "extra-token")) }
		for server.lookups.Load() == 0 {
			time.Sleep(time.Second)
		}
		server.anew.Store(true)
		for range 300 {
			time.Sleep(time.Second)
			read(0)
		}
		if got := read(0).AccountUID; got != "second" {
			t.Errorf("five minutes later the token is of account %q", got)
		}
		time.Sleep(5 * time.Hour)
		if c := read(1); time.Now().After(c.Lifetime.Limit().Add(time.Second)) || server.hung.Load() < 60 {
			t.Errorf("a token issued at %v, with %d hung look-ups", c.Lifetime.Issued, server.hung.Load())
		}
		for server.hanging.Load() == 0 {
			time.Sleep(time.Second)
		}
		cancel()
		begun := time.Now()
		if err := <-ended; err != nil || time.Since(begun) > 0 {
			t.Errorf("ended after %v, %v", time.Since(begun), err)
		}
	})
}

func readClaims(t *testing.T, path string) Claims {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ParseClaims(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// accountServer has two accounts: the second hangs whenever it is looked up, the
// first is made anew one day.
type accountServer struct {
	anew          atomic.Bool
	lookups       atomic.Int64 // answered
	hung, hanging atomic.Int64
}

func (a *accountServer) current() types.UID {
	if a.anew.Load() {
		return "second"
	}
	return "first"
}

func (a *accountServer) lookup(ctx context.Context, _, name string) (types.UID, error) {
	if name == accountOf(1).name {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		a.hanging.Add(1)
		defer a.hanging.Add(-1)
		<-ctx.Done()
		a.hung.Add(1)
		return "", ctx.Err()
	}
	a.lookups.Add(1)
	return a.current(), nil
}

func (a *accountServer) mint(ctx context.Context, r Request, i *issuer) (Minted, error) {
	m, err := i.mint(ctx, r)
	m.AccountUID = a.current()
	m.Token = NewToken(sign(ofAccount(claimsFor(r, m.Lifetime.Issued, m.Lifetime.TTL()), m.AccountUID)))
	return m, err
}
