package cases

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/client-go/rest"
)

const (
	discoveryGroup = "OIDC discovery"
	configPath     = "/.well-known/openid-configuration"
	keysPath       = "/openid/v1/jwks"
)

// discovery: the OIDC documents.
func discovery() []Case {
	var out []Case
	add := func(name string, flags *Flags, run func(*World)) {
		out = append(out, Case{Group: discoveryGroup, Name: name, Flags: flags, Run: run})
	}
	add("the configuration, byte for byte; its type; to be cached for an hour", Usual, func(w *World) {
		w.wantConfig(w.Admin.Host+keysPath, ClusterIssuer, `"RS256"`)
	})
	add("the configuration has the first issuer, every algorithm in order, and the keys' address as it was chosen", Migrated, func(w *World) {
		w.wantConfig(Migrated.JWKSURI, Migrated.Issuers[0], `"ES256","RS256"`)
	})
	add("the keys: their type; to be cached for an hour; every public key, in order, and nothing private", Migrated, func(w *World) {
		body := w.wantDocument(keysPath, "application/jwk-set+json")
		var got, want struct{ Keys []map[string]any }
		w.must(json.Unmarshal(body, &got))
		for _, alg := range Migrated.Algs {
			want.Keys = append(want.Keys, w.published(alg))
		}
		w.wantEqual("keys", got, want)
	})
	add("the published keys verify tokens", Usual, func(w *World) {
		var keys jose.JSONWebKeySet
		w.must(json.Unmarshal(w.wantDocument(keysPath, "application/jwk-set+json"), &keys))
		jws, err := jose.ParseSignedCompact(w.token("default", tokenRequest()), []jose.SignatureAlgorithm{jose.RS256})
		w.must(err)
		if _, err := jws.Verify(keys); err != nil {
			w.Errorf("they do not: %w", err)
		}
	})
	add("a service account may read both", Usual, func(w *World) {
		config := w.Bearer(w.token("default", tokenRequest()))
		w.wantStatus(config, 200)
	})
	add("an issuer that is no https URL has neither, and serves: 404", Closed, func(w *World) {
		w.wantStatus(w.Admin, 404)
		w.token("default", tokenRequest())
	})
	add("other answers are not to be cached", Usual, func(w *World) {
		r, _ := w.fetch(w.Admin, "/version")
		w.wantEqual("Cache-Control", r.Header.Get("Cache-Control"), "no-cache, private")
	})
	out = append(out, Case{
		Group: discoveryGroup, Name: "nobody may read neither: 403",
		Differs: "the fake shows the documents to anybody, as clusters do whose tokens others shall trust",
		Run:     func(w *World) { w.wantStatus(w.Bearer(""), 403) },
	})
	return out
}

// published is the key as the server shows it.
func (w *World) published(alg jose.SignatureAlgorithm) map[string]any {
	kid, err := keyID(w.Key(alg).Public())
	w.must(err)
	raw, err := json.Marshal(jose.JSONWebKey{Key: w.Key(alg).Public(), KeyID: kid, Algorithm: string(alg), Use: "sig"})
	w.must(err)
	var key map[string]any
	w.must(json.Unmarshal(raw, &key))
	return key
}

func (w *World) wantConfig(keys, issuer, algs string) {
	got := w.wantDocument(configPath, "application/json")
	w.wantEqual("configuration", string(got), fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"response_types_supported":["id_token"],`+
		`"subject_types_supported":["public"],"id_token_signing_alg_values_supported":[%s]}`, issuer, keys, algs))
}

func (w *World) wantDocument(path, contentType string) []byte {
	r, body := w.fetch(w.Admin, path)
	w.wantEqual("status, type and caching", []string{r.Status, r.Header.Get("Content-Type"), r.Header.Get("Cache-Control")},
		[]string{"200 OK", contentType, "public, max-age=3600"})
	return body
}

func (w *World) wantStatus(config *rest.Config, want int) {
	for _, path := range []string{configPath, keysPath} {
		r, _ := w.fetch(config, path)
		w.wantEqual(path, r.StatusCode, want)
	}
}

// fetch is GET by plain HTTP.
func (w *World) fetch(config *rest.Config, path string) (*http.Response, []byte) {
	client, err := rest.HTTPClientFor(config)
	w.must(err)
	request, err := http.NewRequestWithContext(w.Ctx, http.MethodGet, config.Host+path, nil)
	w.must(err)
	response, err := client.Do(request)
	w.must(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	w.must(err)
	return response, body
}
