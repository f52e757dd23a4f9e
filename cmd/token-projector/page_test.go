package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/metrics"
	"github.com/token-projector/token-projector/projector"
)

// statusOf is a status of n tokens that live for an hour, each a minute older than the one before.
func statusOf(n int) *projector.Status {
	now := time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	s := &projector.Status{Time: now, Synced: true}
	for i := range n {
		issued := now.Add(-time.Duration(i) * time.Minute)
		s.Pods = append(s.Pods, projector.PodStatus{
			UID: types.UID(fmt.Sprint("uid-", i)), Namespace: "team-a", Name: fmt.Sprint("web-", i),
			Volumes: []projector.VolumeStatus{{Name: "vault", State: "ready", Tokens: []projector.TokenStatus{{
				Path: "token", Audience: "vault", State: stateFresh,
				Issued: issued, Expires: issued.Add(time.Hour), RefreshDue: issued.Add(48 * time.Minute),
			}}}},
		})
	}
	return s
}

func rendered(t testing.TB, s *projector.Status) string {
	t.Helper()
	var out bytes.Buffer
	if err := page(statusAnswer{Node: "node-1", Version: "v1", Phase: "running", Status: s}).Render(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestPage: every token has its row with a bar, what is worst comes first, and no name becomes markup.
func TestPage(t *testing.T) {
	const hostile = `"><script>alert(1)</script><img src=x onerror=y>&`
	s := statusOf(3)
	s.Pods[1].Volumes[0].Tokens[0].State = stateStale
	s.Pods[2].Volumes[0].Tokens[0] = projector.TokenStatus{
		Path: hostile, Audience: hostile, State: statePending, Error: &projector.VolumeError{Reason: "TokenRequest", Message: hostile},
	}
	s.Pods = append(s.Pods, projector.PodStatus{UID: hostile, Volumes: []projector.VolumeStatus{{Name: hostile, State: "detached"}}})
	text := rendered(t, s)
	elements := elementsOf(t, text)
	if elements["tr"] != 5 || elements["svg"] != 2 || elements["rect"] != 8 {
		t.Errorf("elements: %v", elements)
	}
	if planted := elementsOf(t, text+hostile); planted["script"] == 0 || planted["img"] == 0 {
		t.Error("planted markup is not found")
	}
	if elements["script"]+elements["img"] > 0 {
		t.Errorf("a name became markup: %v", elements)
	}
	at := func(part string) int { return strings.Index(text, part) }
	if stale, pending, fresh := at("team-a/web-1"), at("team-a/web-2"), at("team-a/web-0"); stale < 0 || stale > pending || pending > fresh {
		t.Errorf("order: stale at %d, pending at %d, fresh at %d", stale, pending, fresh)
	}
	for _, part := range []string{
		`<li class="fresh"><b>1</b>fresh</li>`, `<li class="zero"><b>0</b>expired</li>`, `<li class="detached"><b>1</b>detached</li>`,
		"<td>47m</td><td>59m</td>", "TokenRequest: ", `<rect class="lived" x="0" width="17" height="60">`, "issued 2026-11-27T03:00:00Z, expires 2026-11-27T04:00:00Z, refresh 2026-11-27T03:48:00Z",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in the page", part)
		}
	}
}

// TestPagePolicy: what the browser is told to let the page have is the page's style, byte for byte, and nothing else.
func TestPagePolicy(t *testing.T) {
	_, rest, _ := strings.Cut(rendered(t, statusOf(1)), "<style>")
	style, rest, found := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "';"
	if !found || len(style) == 0 || strings.Contains(rest, "<style") || !strings.HasPrefix(pagePolicy, want) {
		t.Errorf("the style's policy is %s, what is sent %s", want, pagePolicy)
	}
}

// elementsOf counts the elements that a browser sees.
func elementsOf(t *testing.T, text string) map[string]int {
	t.Helper()
	tree, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	elements := map[string]int{}
	for n := range tree.Descendants() {
		if n.Type == html.ElementNode {
			elements[n.Data]++
		}
	}
	return elements
}

// TestPageIsBounded: of very many tokens the most urgent are shown, and it is said that there are others.
func TestPageIsBounded(t *testing.T) {
	s := statusOf(pageRows + 3)
	s.Pods[0].Volumes[0].Tokens[0].State = stateExpired
	s.Pods[1].Volumes[0].State = "detached" // although its token is fresh, like the next one's
	s.Pods[2].Volumes[0].Error = &projector.VolumeError{Reason: projector.ReasonMissing, Message: "configMap is not there"}
	text := rendered(t, s)
	if n := strings.Count(text, "<svg"); n != pageRows || !strings.Contains(text, "The 1000 most urgent of 1003") {
		t.Errorf("%d rows", n)
	}
	worst := []string{"web-1<", `<td class="detached">fresh, detached</td>`, "web-0<", `<td class="expired">expired</td>`, "web-2<"}
	for at, rest := 0, text; at < len(worst); at++ {
		_, after, ok := strings.Cut(rest, worst[at])
		if rest = after; !ok {
			t.Errorf("no %s in the page after %q", worst[at], worst[:at])
		}
	}
}

// TestMaySeeStatus: names of pods are told where the operator said who may ask, and to this machine.
func TestMaySeeStatus(t *testing.T) {
	const here, everywhere = "127.0.0.1:9477", ":9477"
	for _, c := range []struct {
		address, config string
		insecure        bool
		from, host      string
		want            int
	}{
		{here, "", false, "127.0.0.1:5", "127.0.0.1:9477", 200},
		{here, "", false, "[::1]:5", "localhost:9477", 200},
		{here, "", false, "[::ffff:127.0.0.1]:5", "[::1]:9477", 200},
		{here, "", false, "[::1]:5", "[::1]", 200}, // port 80, by way of another one
		{here, "", false, "[::1]:5", "127.0.0.1", 200},
		{here, "", false, "127.0.0.1:5", "[rebound.example]:80", 403},
		{here, "", false, "127.0.0.1:5", "", 403},
		{here, "", false, "127.0.0.1:5", "rebound.example", 403},
		{here, "web.yml", false, "127.0.0.1:5", "rebound.example", 403}, // it may have neither TLS nor users
		{everywhere, "", true, "127.0.0.1:5", "localhost:9477", 200},
		{everywhere, "", true, "10.0.0.1:5", "10.0.0.2:9477", 403},
		{everywhere, "web.yml", true, "10.0.0.1:5", "10.0.0.2:9477", 403}, // nor here
		{everywhere, "web.yml", false, "10.0.0.1:5", "node-1:9477", 200},
	} {
		o := &options{nodeName: "node-1", serving: serving{metricsAddress: c.address, webConfigFile: c.config, metricsInsecure: c.insecure}}
		h := metricsHandler(o, metrics.New("v", "r"), &health{})
		for path, kind := range map[string]string{"/": "text/html; charset=utf-8", statusPath: "application/json"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.RemoteAddr, r.Host = c.from, c.host
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.want || c.want == 200 && (w.Header().Get("Content-Type") != kind || !strings.Contains(w.Body.String(), "node-1")) {
				t.Errorf("%s from %s to %s: %d %s, want %d", path, c.from, c.host, w.Code, w.Header(), c.want)
			}
			if strings.Contains(w.Body.String(), "node-1") && c.want != 200 {
				t.Errorf("%s from %s: tells the node", path, c.from)
			}
		}
	}
}

// heldWriter is a client that does not read: what is written to it waits until it is let go.
type heldWriter struct {
	*httptest.ResponseRecorder
	once        sync.Once
	wrote, held chan struct{}
}

func (w *heldWriter) Write(b []byte) (int, error) {
	w.once.Do(func() { w.wrote <- struct{}{} })
	<-w.held
	return w.ResponseRecorder.Write(b)
}

// TestStatusInFlight: clients that do not read hold few copies of the status; when they are gone there is room again.
func TestStatusInFlight(t *testing.T) {
	h := metricsHandler(&options{serving: serving{metricsAddress: "127.0.0.1:1"}}, metrics.New("v", "r"), &health{})
	ask := func(w http.ResponseWriter, path string) {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.RemoteAddr, r.Host = "127.0.0.1:5", "localhost"
		h.ServeHTTP(w, r)
	}
	code := func() int {
		w := httptest.NewRecorder()
		ask(w, statusPath)
		return w.Code
	}
	var all sync.WaitGroup
	wrote, held := make(chan struct{}), make(chan struct{})
	for i := range statusInFlight {
		if c := code(); c != http.StatusOK {
			t.Errorf("beside %d others: %d", i, c)
		}
		all.Go(func() {
			ask(&heldWriter{ResponseRecorder: httptest.NewRecorder(), wrote: wrote, held: held}, []string{"/", statusPath}[i%2])
		})
		<-wrote
	}
	if c := code(); c != http.StatusServiceUnavailable {
		t.Errorf("one too many: %d", c)
	}
	close(held)
	all.Wait()
	if c := code(); c != http.StatusOK {
		t.Errorf("when the others are gone: %d", c)
	}
}

// BenchmarkPage renders a thousand tokens.
func BenchmarkPage(b *testing.B) {
	s := statusOf(pageRows)
	for b.Loop() {
		rendered(b, s)
	}
}
