package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// TestInspectWatch: each look shows what is there then, be it nothing, or no root, until the signal; the last one is the exit status.
func TestInspectWatch(t *testing.T) {
	s := newSigner(t)
	age := func(age string) func(string) error {
		return func(root string) error { return s.publish(root, "u1", "v", "token", "age="+age) }
	}
	away := func(root string) error { return os.Rename(root, root+"-away") }
	type step struct {
		change func(root string) error
		says   string
	}
	for name, c := range map[string]struct {
		pod    string
		steps  []step
		status int
	}{
		"well":         {"web-0", []step{{age("61m"), " expired"}, {age("1m"), " fresh"}}, 0},
		"stale":        {"web-0", []step{{age("61m"), " expired"}, {age("55m"), " stale"}}, 1},
		"gone":         {"web-0", []step{{func(root string) error { return os.RemoveAll(root + "/pods/u1") }, `no projected token of "web-0" below `}}, 1},
		"no root":      {"", []step{{away, "no such file or directory; looking again"}}, 1},
		"another root": {"", []step{{away, "no such file or directory; looking again"}, {age("1m"), " fresh"}}, 0},
		"no more pods": {"", []step{{func(root string) error { return os.RemoveAll(root + "/pods") }, "has no directory pods: "}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			if err := age("0s")(root); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			out, w := io.Pipe()
			var stderr bytes.Buffer
			status := make(chan int, 1)
			go func() {
				status <- command(ctx, append([]string{"inspect", "--root-dir", root, "--watch", "--interval", "100ms"}, strings.Fields(c.pod)...), w, &stderr)
				w.Close()
			}()
			lines := bufio.NewScanner(out)
			until := func(says string) {
				for lines.Scan() {
					if strings.Contains(lines.Text(), says) {
						return
					}
				}
				t.Errorf("it ended before it said %q: %s", says, stderr.String())
			}
			until(" fresh")
			for _, step := range c.steps {
				if err := step.change(root); err != nil {
					t.Fatal(err)
				}
				until(step.says)
			}
			cancel()
			_, _ = io.Copy(io.Discard, out)
			if got := <-status; got != c.status || stderr.Len() > 0 {
				t.Errorf("exit status %d, want %d: %s", got, c.status, stderr.String())
			}
		})
	}
}

// TestSpan: less than a second is none, to either side.
func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second - 1: "0s", -1: "0s", -time.Second + 1: "0s", time.Second: "1s", -time.Second: "-1s",
		-1500 * time.Millisecond: "-1s", 11 * time.Minute: "11m", -49 * time.Hour: "-2d1h",
	} {
		if got := span(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

// TestInspectInterrupted: a signal while the API server is asked ends it, and what was not answered is not said to be invalid.
func TestInspectInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then is it noticed that the client goes
		cancel()
		<-r.Context().Done()
	}))
	defer api.Close()
	root := t.TempDir()
	if err := newSigner(t).publish(root, "u1", "v", "token"); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	status := command(ctx, []string{"inspect", "--root-dir", root, "--verify", "review", "--kubeconfig", kubeconfigOf(t, api)}, &stdout, &stderr)
	if status != 1 || stdout.Len() > 0 || stderr.String() != "token-projector: interrupted\n" {
		t.Errorf("exit status %d, stdout %q, stderr %q", status, stdout.String(), stderr.String())
	}
}

// TestInspectUnanswered: an API server that answers for no token is not asked for all of them, but again with the next look.
func TestInspectUnanswered(t *testing.T) {
	var asked atomic.Int32
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "broken", http.StatusInternalServerError)
	}))
	defer api.Close()
	s, root := newSigner(t), t.TempDir()
	for _, uid := range []string{"u1", "u2", "u3", "u4", "u5"} {
		if err := s.publish(root, uid, "v", "token"); err != nil {
			t.Fatal(err)
		}
	}
	o := &inspection{rootDir: root}
	var err error
	if o.check, err = newVerifier(byReview, kubeconfigOf(t, api)); err != nil {
		t.Fatal(err)
	}
	for look := range int32(2) {
		found, err := o.look(t.Context(), time.Now())
		if err != nil || asked.Load() != (look+1)*maxUnanswered || len(found.Tokens) != 5 {
			t.Errorf("look %d: %d tokens, %v; the API server was asked %d times", look, len(found.Tokens), err, asked.Load())
		}
		for _, token := range found.Tokens {
			if token.State != stateUnverified || !token.wrong {
				t.Errorf("look %d: %s is %s", look, token.PodUID, token.State)
			}
		}
	}
}

// kubeconfigOf writes a kubeconfig that names the API server.
func kubeconfigOf(t *testing.T, api *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: api.URL}}, Contexts: map[string]*clientcmdapi.Context{"c": {Cluster: "c"}}, CurrentContext: "c",
	}, path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestKeysOverPlainHTTP: a JWKS that an https URL leads to, but that came over plain HTTP, is not taken.
func TestKeysOverPlainHTTP(t *testing.T) {
	keys := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) })
	plain, secret := httptest.NewServer(keys), httptest.NewTLSServer(keys)
	defer plain.Close()
	defer secret.Close()
	for to, want := range map[string]bool{plain.URL: false, secret.URL: true} {
		from := httptest.NewTLSServer(http.RedirectHandler(to, http.StatusFound))
		defer from.Close()
		client := keysClient()
		client.Transport = from.Client().Transport
		resp, err := client.Get(from.URL)
		if (err == nil) != want {
			t.Errorf("led to %s: %v", to, err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
}
