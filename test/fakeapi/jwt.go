package fakeapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// signer makes JWTs as the real server's does: the header is exactly alg and kid.
type signer struct {
	jose   jose.Signer
	public jose.JSONWebKey
}

func newSigner(alg jose.SignatureAlgorithm) (*signer, error) {
	key, err := newKey(alg)
	if err != nil {
		return nil, fmt.Errorf("make the %s signing key: %w", alg, err)
	}
	kid, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	j, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		return nil, fmt.Errorf("make the %s signer: %w", alg, err)
	}
	return &signer{jose: j, public: jose.JSONWebKey{Key: key.Public(), KeyID: kid, Algorithm: string(alg), Use: "sig"}}, nil
}

func newKey(alg jose.SignatureAlgorithm) (crypto.Signer, error) {
	if alg == jose.RS256 {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// keyID is the unpadded base64url of the SHA-256 of the key in PKIX form (kubernetes pkg/serviceaccount/jwt.go).
func keyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// sign serialises claims, a map so that the keys come out sorted, and signs them.
func (s *signer) sign(claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode the claims: %w", err)
	}
	jws, err := s.jose.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign the claims: %w", err)
	}
	return jws.CompactSerialize()
}

// subjectOf is the user of a token that was issued here, for the API itself; "" if it was not, or is not good now. Like
// the real server it forgives a clock that is wrong by a minute.
func (s *Server) subjectOf(token string) string {
	var claims jwt.Claims
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{s.opts.SigningAlg})
	if err != nil || parsed.Claims(s.signer.public.Key, &claims) != nil {
		return ""
	}
	if claims.Validate(jwt.Expected{Issuer: s.opts.Issuer, AnyAudience: s.opts.APIAudiences, Time: s.now()}) != nil {
		return ""
	}
	return claims.Subject
}

// Keys are the public keys of all tokens, as /openid/v1/jwks has them.
func (s *Server) Keys() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{s.signer.public}}
}
