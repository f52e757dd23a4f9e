package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/projector"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"token-projector": main}) }

// TestScripts runs the commands as a user does.
func TestScripts(t *testing.T) {
	signer := newSigner(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("ESC", "\x1b")
			e.Setenv("LONG", strings.Repeat("x", 400))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"project":   signer.project,
			"token":     signer.token,
			"jwks":      signer.jwks,
			"serve":     serve,
			"no-tokens": noTokens,
		},
	})
}

// signer makes tokens as an API server does.
type signer struct {
	key    *ecdsa.PrivateKey
	signer jose.Signer
}

func newSigner(t *testing.T) *signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{key, s}
}

// project ROOT UID VOLUME PATH NAME=VALUE... publishes a volume of one token, and its namespace beside it.
func (s *signer) project(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(s.publish(ts.MkAbs(args[0]), args[1:]...))
}

// publish does what project says, for a root, UID, VOLUME, PATH and NAME=VALUE...
func (s *signer) publish(root string, args ...string) error {
	token, err := s.sign(args[0], args[3:])
	path := filepath.Join(root, "pods", args[0], "volumes/kubernetes.io~projected", args[1])
	if err := errors.Join(err, os.MkdirAll(path, 0o755)); err != nil {
		return err
	}
	dir, err := atomicwriter.OpenRoot(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	self := dir.Self()
	_, err = dir.Publish([]atomicwriter.File{
		{Path: args[2], Data: token, Mode: 0o640, Owner: &self},
		{Path: "namespace", Data: []byte("team-a"), Mode: 0o644, Owner: &self},
	}, atomicwriter.Options{Now: time.Now()})
	return err
}

// token FILE NAME=VALUE... writes a token's file.
func (s *signer) token(ts *testscript.TestScript, _ bool, args []string) {
	token, err := s.sign("u1", args[1:])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), token, 0o600))
}

// jwks FILE writes the public key.
func (s *signer) jwks(ts *testscript.TestScript, _ bool, args []string) {
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}

// posted is a token in a request.
var posted = regexp.MustCompile(`eyJ[\w.-]+`)

// serve VARIABLE CA serves the work directory over TLS until the script ends; the variable is its URL, that with
// _AS_PLANTED the same with a password, and the file gets its CA. To
// a token that is posted it answers with a warning that repeats it.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	files := http.FileServer(http.Dir(ts.MkAbs(".")))
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			files.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Warning", fmt.Sprintf("299 - %q", posted.Find(body)))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusInternalServerError)
	}))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
	ts.Setenv(args[0]+"_AS_PLANTED", strings.Replace(s.URL, "//", "//user:planted@", 1))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), ca, 0o600))
}

// sign makes a token that was issued age ago, or at iat, and lives for ttl; if forged, with a signature of nobody.
func (s *signer) sign(uid string, args []string) ([]byte, error) {
	a := map[string]string{"ns": "team-a", "pod": "web-0", "sa": "web", "aud": "vault", "age": "0s", "ttl": "1h", "uid": uid}
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		a[name] = value
	}
	age, err1 := time.ParseDuration(a["age"])
	ttl, err2 := time.ParseDuration(a["ttl"])
	issued := time.Now().Add(-age)
	if iat, err := strconv.ParseInt(a["iat"], 10, 64); err == nil {
		issued = time.Unix(iat, 0)
	}
	token, err := jwt.Signed(s.signer).Claims(map[string]any{
		"sub": cmp.Or(a["sub"], "system:serviceaccount:"+a["ns"]+":"+a["sa"]), "aud": strings.Split(a["aud"], ","),
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": issued.Add(ttl).Unix(),
		"kubernetes.io": map[string]any{"namespace": a["ns"], "pod": map[string]string{"name": a["pod"], "uid": a["uid"]}},
	}).Serialize()
	if a["forged"] != "" {
		token = token[:strings.LastIndexByte(token, '.')+1] + strings.Repeat("A", 86)
	}
	return []byte(token), errors.Join(err1, err2, err)
}

// no-tokens fails if the latest command has printed a token of the work directory, or any part of a signature; it first
// catches one that is planted.
func noTokens(ts *testscript.TestScript, _ bool, _ []string) {
	said := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	var secrets []string
	ts.Check(filepath.WalkDir(ts.MkAbs("."), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if _, bad := projector.ParseClaims(text); bad == nil {
			secrets = append(secrets, strings.Split(string(text), ".")[1:]...)
		}
		return err
	}))
	if len(secrets) == 0 || parts(secrets[0]+said, secrets) == 0 {
		ts.Fatalf("a planted token is not found")
	}
	if n := parts(said, secrets); n > 0 {
		ts.Fatalf("%d parts of tokens are in the output", n)
	}
}

func parts(text string, secrets []string) (n int) {
	for _, s := range secrets {
		n += strings.Count(text, s)
	}
	return n
}
