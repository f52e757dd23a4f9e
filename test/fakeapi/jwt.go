package fakeapi

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/apimachinery/pkg/util/sets"
)

// NewSigningKey makes a key for Options.SigningKeys, of algorithm RS256 or ES256.
func NewSigningKey(alg jose.SignatureAlgorithm) (crypto.Signer, error) {
	switch alg {
	case jose.RS256:
		return rsa.GenerateKey(rand.Reader, 2048)
	case jose.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	return nil, fmt.Errorf("make a signing key of algorithm %q: must be ES256 or RS256", alg)
}

// signingKey is a private key, and what makes JWTs with it whose header is exactly alg and kid.
type signingKey struct {
	jose.JSONWebKey
	jose.Signer
}

// newSigningKey names a key by the unpadded base64url of the SHA-256 of its public half in PKIX form, as the real server does
// (kubernetes pkg/serviceaccount/jwt.go).
func newSigningKey(key crypto.Signer) (signingKey, error) {
	alg := jose.ES256
	if _, ok := key.Public().(*rsa.PublicKey); ok {
		alg = jose.RS256
	}
	der, errKey := x509.MarshalPKIXPublicKey(key.Public())
	sum := sha256.Sum256(der)
	jwk := jose.JSONWebKey{Key: key, KeyID: base64.RawURLEncoding.EncodeToString(sum[:]), Algorithm: string(alg), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jwk}, nil)
	return signingKey{jwk, signer}, errors.Join(errKey, err)
}

// identity is who issues tokens, and whose tokens are taken: the first issues and signs, all are accepted.
type identity struct {
	issuers []string
	keys    []signingKey
}

// sign serialises claims, a map so that the keys come out sorted, and signs them.
func (id identity) sign(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := id.keys[0].Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func (s *Server) identity() identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issuing
}

// SetIssuers replaces Options.Issuers.
func (s *Server) SetIssuers(first string, others ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuing.issuers = append([]string{first}, others...)
}

// SetSigningKeys replaces Options.SigningKeys.
func (s *Server) SetSigningKeys(first crypto.Signer, others ...crypto.Signer) error {
	var signing []signingKey
	for _, key := range append([]crypto.Signer{first}, others...) {
		made, err := newSigningKey(key)
		if err != nil {
			return fmt.Errorf("take a signing key: %w", err)
		}
		signing = append(signing, made)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuing.keys = signing
	return nil
}

// apiAudiences are those of the API itself.
func (s *Server) apiAudiences() []string {
	if len(s.opts.APIAudiences) > 0 {
		return s.opts.APIAudiences
	}
	return s.identity().issuers
}

// Keys are the public keys of all tokens, as /openid/v1/jwks has them.
func (s *Server) Keys() jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, key := range s.identity().keys {
		set.Keys = append(set.Keys, key.Public())
	}
	return set
}

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
