package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/crypto/bcrypt"
	certutil "k8s.io/client-go/util/cert"
)

func webFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// user is a web config with a user whose password is "right".
func user(t testing.TB) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("right"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return "basic_auth_users:\n  reader: " + string(hash) + "\n"
}

// TestSecured: beyond loopback, a web config must ask for TLS, and for a password or a certificate of a CA that it names.
func TestSecured(t *testing.T) {
	const tls, ca, verify = "tls_server_config:\n  cert_file: a\n  key_file: b\n", "  client_ca_file: c\n", "  client_auth_type: RequireAndVerifyClientCert\n"
	for content, want := range map[string]string{
		tls + user(t):                          "",
		tls + verify + ca:                      "",
		tls + verify + "  client_ca: inline\n": "",
		"":                                     "no tls_server_config",
		user(t):                                "no tls_server_config",
		tls:                                    "asks no client who it is",
		tls + verify:                           "asks no client who it is", // any CA's
		tls + ca + "  client_auth_type: RequireAnyClientCert\n":              "asks no client who it is",
		tls + ca + "  client_auth_type: VerifyClientCertIfGiven\n":           "asks no client who it is",
		tls + ca + "  client_auth_type: RequestClientCert\n":                 "asks no client who it is",
		tls + "basic_auth_users: {}\n":                                       "asks no client who it is",
		tls + "http_server_config:\n  headers:\n    X-Frame-Options: deny\n": "asks no client who it is",
	} {
		err := secured(webFile(t, content))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}

// TestBadWebConfig: what is wrong is one line that names the file, and the line or the field in it.
func TestBadWebConfig(t *testing.T) {
	for content, want := range map[string]string{
		"basic_auth_users:\n  a: b: c\n":                                      "line 2",
		"basic_auth_users: {}\nunknown: 1\nmore: 2\n":                         "line 2",
		"tls_server_config:\n  cert_file: none\n  key_file: none\n":           "cert_file",
		"tls_server_config:\n  cert_file: none\n":                             "key_file",
		"basic_auth_users:\n  reader: plain\n":                                "bcrypt",
		"http_server_config:\n  headers:\n    X-Content-Type-Options: none\n": "X-Content-Type-Options",
	} {
		c := &webConfig{path: webFile(t, content)}
		err := c.read()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), c.path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %q, want one line with %s and %q", content, err, c.path, want)
		}
	}
}

// TestWebConfigChanges: that the file goes bad is logged once, with its reason, and that it is good again, too.
func TestWebConfigChanges(t *testing.T) {
	core, seen := observer.New(zap.DebugLevel)
	c := &webConfig{path: webFile(t, user(t)), log: zap.New(core)}
	for i, step := range []struct {
		content string
		bad     bool
		lines   int
	}{
		{user(t), false, 0}, {"a", true, 1}, {"unknown: 1\n", true, 2}, {user(t), false, 3}, {"a", true, 4},
	} {
		if err := os.WriteFile(c.path, []byte(step.content), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c.toolkitLog().Info("no complaint")
			c.toolkitLog().Error("a complaint")
			if err := c.check(); (err != nil) != step.bad {
				t.Errorf("step %d: %v", i, err)
			}
		}
		if seen.Len() != step.lines {
			t.Fatalf("step %d: %d lines, want %d: %v", i, seen.Len(), step.lines, seen.All())
		}
	}
}

// TestStrictMeansTLS: a web config that is empty in the very moment the server begins, and good before and after it, does not have
// metrics served in plain.
func TestStrictMeansTLS(t *testing.T) {
	const certificate = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n"
	c := &webConfig{path: webFile(t, ""), strict: true, log: zap.NewNop()}
	l := listenTCP(t)
	runServer(t, newServer(zap.NewNop(), l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "secret") }), c))
	const request = "GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Basic cmVhZGVyOnJpZ2h0\r\n\r\n" // reader:right
	if resp, body, err := ask(dial(t, l), http.MethodGet, request); err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("while it is empty: %v, %q, %v", resp, body, err)
	}
	cert, key, err := certutil.GenerateSelfSignedCertKey("a", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"tls.crt": cert, "tls.key": key} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(c.path), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(c.path, []byte(certificate+user(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.read(); err != nil {
		t.Fatal(err)
	}
	resp, body, err := ask(dial(t, l), http.MethodGet, request)
	if err != nil || resp.StatusCode != http.StatusForbidden || !resp.Close || strings.Contains(body, "secret") {
		t.Errorf("when it is good: %v, %q, %v", resp, body, err)
	}
}
