package fakeapi

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
)

// The documents, byte for byte but for the keys, as anybody gets them.
func TestDiscovery(t *testing.T) {
	t.Parallel()
	for alg, kty := range map[jose.SignatureAlgorithm]string{jose.ES256: "EC", jose.RS256: "RSA"} {
		s := start(t, Options{SigningAlg: alg})
		client := anonymous(t, s)
		get := func(path, contentType string) []byte {
			t.Helper()
			r, err := fetch(testContext(t), client, "GET", s.URL()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.header; r.code != 200 || got.Get("Content-Type") != contentType || got.Get("Cache-Control") != "public, max-age=3600" {
				t.Errorf("%s: got %d %s, cached %q", path, r.code, got.Get("Content-Type"), got.Get("Cache-Control"))
			}
			return r.body
		}
		want := `{"issuer":"https://kubernetes.default.svc.cluster.local","jwks_uri":"` + s.URL() + `/openid/v1/jwks",` +
			`"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["` + string(alg) + `"]}`
		if diff := cmp.Diff(want, string(get("/.well-known/openid-configuration", "application/json"))); diff != "" {
			t.Errorf("discovery: -want +got\n%s", diff)
		}
		var published struct{ Keys []map[string]string }
		if err := json.Unmarshal(get("/openid/v1/jwks", "application/jwk-set+json"), &published); err != nil || len(published.Keys) != 1 {
			t.Fatalf("got the keys %v, %v", published, err)
		}
		key := published.Keys[0]
		if key["use"] != "sig" || key["kty"] != kty || key["kid"] != s.Keys().Keys[0].KeyID || key["alg"] != string(alg) || key["d"] != "" {
			t.Errorf("got the key %v", key)
		}
		if r := do(t, s, "GET", "/version", nil); r.header.Get("Cache-Control") != "no-cache, private" {
			t.Errorf("other answers may be cached: %q", r.header.Get("Cache-Control"))
		}
	}
}

// anonymous knows the server's CA and has no credential.
func anonymous(t *testing.T, s *Server) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// The published keys are those that verify, read by a stock library.
func TestPublishedKeysVerify(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{})
	token := mustToken(t, w.Server, "default", podTokenRequest(w.pod, "vault", 600)).Status.Token
	var keys jose.JSONWebKeySet
	decodeJSON(t, do(t, w.Server, "GET", "/openid/v1/jwks", nil), 200, &keys)
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal("the token does not parse")
	}
	if _, err := jws.Verify(newTokenWorld(t, Options{}).Keys()); err == nil {
		t.Error("the keys of another server verify the token")
	}
	if _, err := jws.Verify(keys); err != nil {
		t.Errorf("the published keys do not verify the token: %v", err)
	}
}

// Of an issuer that is not fit for OIDC there are no documents.
func TestNoDiscovery(t *testing.T) {
	t.Parallel()
	for issuer, code := range map[string]int{
		"https://issuer.example": 200, "https://issuer.example/a/b": 200, "http://issuer.example": 404, "issuer": 404,
		"https://issuer.example?a=b": 404, "https://issuer.example#a": 404,
	} {
		s := start(t, Options{Issuer: issuer})
		for _, path := range []string{"/.well-known/openid-configuration", "/openid/v1/jwks"} {
			if r := do(t, s, "GET", path, nil); r.code != code {
				t.Errorf("%s of issuer %s: got %d, want %d", path, issuer, r.code, code)
			}
		}
	}
}
