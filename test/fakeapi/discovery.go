package fakeapi

import (
	"cmp"
	"net/url"

	"k8s.io/apimachinery/pkg/util/sets"
)

const (
	configPath = "/.well-known/openid-configuration"
	keysPath   = "/openid/v1/jwks"
)

// openIDConfig is the OIDC discovery document, its fields in the real server's order.
type openIDConfig struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	SigningAlgs   []string `json:"id_token_signing_alg_values_supported"`
}

func (s *Server) openIDConfig() openIDConfig {
	algs := sets.New[string]()
	for _, key := range s.Keys().Keys {
		algs.Insert(key.Algorithm)
	}
	return openIDConfig{
		Issuer: s.identity().issuers[0], JWKSURI: cmp.Or(s.opts.JWKSURI, s.URL()+keysPath),
		ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"},
		SigningAlgs: sets.List(algs),
	}
}

// discoverable: of an issuer that OIDC does not allow there are no documents, and the server runs all the same.
func discoverable(issuer string) bool {
	u, err := url.Parse(issuer)
	return err == nil && u.Scheme == "https" && u.RawQuery == "" && u.Fragment == ""
}

func (c *call) serveOpenID(contentType string, document any) error {
	if !discoverable(c.s.identity().issuers[0]) {
		return errNoPath
	}
	c.w.Header().Set("Cache-Control", "public, max-age=3600")
	return c.serveJSON(contentType, document)
}
