package integration

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// beyond is loopback by a name that the daemon does not take for it, so that it serves metrics as beyond loopback.
const beyond = "LOCALHOST:0"

// website is a web config and what it names.
type website struct {
	t   *testing.T
	dir string
}

func (s website) file(name string) string { return filepath.Join(s.dir, name) }

func (s website) write(config string) { replaceFile(s.t, s.file("web.yml"), []byte(config)) }

func (s website) serveAs(a *authority) {
	cert, key := a.issue()
	replaceFile(s.t, s.file("tls.crt"), cert)
	replaceFile(s.t, s.file("tls.key"), key)
}

const certificateFiles = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n"

func password(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	check(t, err)
	return "basic_auth_users:\n  prometheus: " + string(hash) + "\n"
}

// fetch gets a page over TLS, and returns status 0 if there is no answer.
func (d *daemon) fetch(c *http.Client, path, password string) (int, string) {
	d.t.Helper()
	_, port, err := net.SplitHostPort(d.Metrics)
	check(d.t, err)
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "https://127.0.0.1:"+port+path, nil)
	check(d.t, err)
	if password != "" {
		r.SetBasicAuth("prometheus", password)
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(d.t, err)
	return resp.StatusCode, resp.Proto + " " + string(body)
}

func (d *daemon) expectFetch(c *http.Client, path, password string, want int) string {
	d.t.Helper()
	status, text := d.fetch(c, path, password)
	if status != want {
		d.t.Errorf("%s: status %d, want %d: %.200s", path, status, want, text)
	}
	return text
}

func keeping(c *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}}
}

func connecting(c *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
}

// TestMetricsBeyondLoopback: they are served over TLS to who has the password, profiles as well, and a certificate, a key and a
// password that are replaced are used from then on, by the same process. Probes are plain.
func TestMetricsBeyondLoopback(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t, fakeapi.Options{}), website{t, t.TempDir()}
	before, after := newAuthority(t), newAuthority(t)
	s.serveAs(before)
	s.write(certificateFiles + password(t, "first"))
	d := w.start("--metrics-address", beyond, "--web-config-file", s.file("web.yml"), "--pprof")
	d.waitReady()
	kept := keeping(before.client())
	for _, path := range []string{"/metrics", "/debug/pprof/", "/debug/pprof/goroutine"} {
		d.expectFetch(kept, path, "", http.StatusUnauthorized)
		d.expectFetch(kept, path, "wrong", http.StatusUnauthorized)
		d.expectFetch(kept, path, "first", http.StatusOK)
	}
	if text := d.expectFetch(kept, "/metrics", "first", http.StatusOK); !strings.HasPrefix(text, "HTTP/2.0 ") || !strings.Contains(text, "token_projector_tokens") {
		t.Errorf("got %.200s", text)
	}
	resp, err := http.Get("http://" + d.Metrics + "/metrics")
	check(t, err)
	if resp.Body.Close(); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %s", resp.Status)
	}

	d.expectFetch(connecting(after.client()), "/metrics", "first", 0) // the other certificate is not there yet
	s.serveAs(after)
	d.expectFetch(connecting(after.client()), "/metrics", "first", http.StatusOK)
	d.expectFetch(connecting(before.client()), "/metrics", "first", 0)

	s.write(certificateFiles + password(t, "second"))
	d.expectFetch(kept, "/metrics", "first", http.StatusUnauthorized) // on the old connection, too
	d.expectFetch(kept, "/metrics", "second", http.StatusOK)
	if d.probe("/readyz") != http.StatusOK {
		t.Error("not ready")
	}
	d.Terminate()
}

// TestBadWebConfigLater: while the web config is bad, nobody gets metrics, the daemon goes on, and says so once; so it is with a web
// config that opens what was closed.
func TestBadWebConfigLater(t *testing.T) {
	t.Parallel()
	w, s, ca := newWorld(t, fakeapi.Options{}), website{t, t.TempDir()}, newAuthority(t)
	good := certificateFiles + password(t, "first")
	s.serveAs(ca)
	s.write(good)
	d := w.start("--metrics-address", beyond, "--web-config-file", s.file("web.yml"))
	d.waitReady()
	kept := keeping(ca.client())
	for i, c := range []struct{ content, says string }{
		{"basic_auth_users:\n  a: b: c\n", "line 2"},
		{certificateFiles, "asks no client who it is"},
		{password(t, "first"), "no tls_server_config"},
		{strings.ReplaceAll(good, "tls.key", "other.key"), "other.key"},
	} {
		d.expectFetch(kept, "/metrics", "first", http.StatusOK)
		s.write(c.content)
		for range 3 {
			for _, client := range []*http.Client{kept, connecting(ca.client())} {
				if status, text := d.fetch(client, "/metrics", "first"); status == http.StatusOK {
					t.Errorf("%q: served %.200s", c.content, text)
				}
			}
		}
		if d.probe("/readyz") != http.StatusOK {
			t.Errorf("%q: not ready", c.content)
		}
		eventually(t, "said to be bad", func() bool { return len(d.lines("the web config is bad")) > i })
		lines := d.lines("the web config is bad")
		if len(lines) != i+1 || !strings.Contains(lines[i], c.says) || !strings.Contains(lines[i], s.file("web.yml")) {
			t.Errorf("%q: lines %q, want one more with %q", c.content, lines, c.says)
		}
		s.write(good)
		d.expectFetch(connecting(ca.client()), "/metrics", "first", http.StatusOK)
		eventually(t, "said to be good again", func() bool { return len(d.lines("the web config is good again")) > i })
		if n := len(d.lines("the web config is good again")); n != i+1 {
			t.Errorf("%q: said %d times to be good again, want %d", c.content, n, i+1)
		}
	}
	check(t, os.Remove(s.file("web.yml")))
	said := len(d.lines("the web config is bad"))
	d.expectFetch(connecting(ca.client()), "/metrics", "first", 0) // which does not come as far as a request
	eventually(t, "said to be missing", func() bool { return len(d.lines("the web config is bad")) == said+1 })
	if lines := d.lines("a client failed to shake hands"); len(lines) > 0 {
		t.Errorf("clients are blamed: %q", lines)
	}
	d.Terminate()
}

// lines are those of the daemon's log that hold a text.
func (d *daemon) lines(text string) (found []string) {
	for l := range strings.Lines(d.Output()) {
		if strings.Contains(l, text) {
			found = append(found, l)
		}
	}
	return found
}

// TestClientCertificates: who has no certificate of the CA that is named gets nothing; when another CA is named, who has one of the
// old gets no more, even if he resumes a session.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	w, s := newWorld(t, fakeapi.Options{}), website{t, t.TempDir()}
	server, old, renewed := newAuthority(t), newAuthority(t), newAuthority(t)
	s.serveAs(server)
	replaceFile(t, s.file("ca.crt"), old.pem())
	s.write(certificateFiles + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n")
	d := w.start("--metrics-address", beyond, "--web-config-file", s.file("web.yml"))
	ofOld, ofRenewed := connecting(server.client(old.identity())), connecting(server.client(renewed.identity()))
	d.expectFetch(connecting(server.client()), "/metrics", "", 0)
	d.expectFetch(ofRenewed, "/metrics", "", 0)
	d.expectFetch(ofOld, "/metrics", "", http.StatusOK)
	d.expectFetch(ofOld, "/metrics", "", http.StatusOK)

	replaceFile(t, s.file("ca.crt"), renewed.pem())
	d.expectFetch(ofOld, "/metrics", "", 0)
	d.expectFetch(ofRenewed, "/metrics", "", http.StatusOK)
	eventually(t, "said what clients do wrong", func() bool { return len(d.lines("a client failed to shake hands")) == 1 })
}

// TestProfiles: there are none unless asked for, and then not beside the probes.
func TestProfiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	for _, flags := range [][]string{nil, {"--pprof"}} {
		d := w.start(flags...)
		for _, path := range []string{"/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/trace?seconds=0.01"} {
			want := http.StatusNotFound
			if len(flags) > 0 {
				want = http.StatusOK
			}
			resp, err := http.Get("http://" + d.Metrics + path)
			check(t, err)
			if resp.Body.Close(); resp.StatusCode != want {
				t.Errorf("%v: metrics' %s: %s, want %d", flags, path, resp.Status, want)
			}
			if status := d.probe(path); status != http.StatusNotFound {
				t.Errorf("%v: health's %s: status %d", flags, path, status)
			}
		}
		d.Terminate()
	}
}

// TestFloodOfConnections: clients that connect and ask nothing, or never end a request's header, take few descriptors from the
// daemon, and keep neither probes nor scrapes out.
func TestFloodOfConnections(t *testing.T) {
	t.Parallel()
	const clients, most, tries = 150, 64, 3
	d := newWorld(t, fakeapi.Options{}).start()
	d.waitReady()
	before := d.descriptors()
	for try := 1; ; try++ {
		began := time.Now()
		d.flood(clients)
		if status := d.probe("/healthz"); status != http.StatusOK {
			t.Errorf("a probe gets %d", status)
		}
		n := d.descriptors() - before
		// A probe's connection may be open, and client-go's come and go.
		if n > 2*most+10 {
			t.Errorf("%d descriptors more than before, want at most %d", n, 2*most+10)
		}
		if n >= most {
			break
		}
		// After five seconds the daemon closes connections that have asked nothing.
		if took := time.Since(began); took < 4*time.Second || try == tries {
			t.Fatalf("%d descriptors more than before after %v, want at least %d", n, took, most)
		}
	}
}

// flood connects so many clients to each address, until the test ends: every second one begins a request.
func (d *daemon) flood(clients int) {
	d.t.Helper()
	for i := range clients {
		for _, address := range []string{d.Metrics, d.Health} {
			c, err := net.Dial("tcp", address)
			check(d.t, err)
			d.t.Cleanup(func() { c.Close() })
			if i%2 == 0 {
				_, err = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: ")
				check(d.t, err)
			}
		}
	}
}

// descriptors are as the daemon counts them: nobody else of its user may look.
func (d *daemon) descriptors() int { return int(d.metric("process_open_fds")) }
