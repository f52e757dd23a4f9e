package cases

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
)

// Sign makes a JWT of claims with the server's key of that algorithm, as the server does.
func (w *World) Sign(alg jose.SignatureAlgorithm, claims any) (string, error) {
	key := w.Key(alg)
	kid, err := keyID(key.Public())
	if err != nil {
		return "", err
	}
	return signed(alg, jose.JSONWebKey{Key: key, KeyID: kid}, claims)
}

// signed makes a JWT; key is any that the library takes.
func signed(alg jose.SignatureAlgorithm, key, claims any) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, nil)
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// keyID is what a key is called in a token's header.
func keyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), err
}

// claims are those of a token as it has them, JSON for JSON.
type claims map[string]any

// parts are the header and the payload of a token, as they are written.
func (w *World) parts(token string) (header, payload []byte) {
	p := strings.Split(token, ".")
	if len(p) != 3 {
		w.Fatalf("a token of %d parts", len(p))
	}
	header, err := base64.RawURLEncoding.DecodeString(p[0])
	w.must(err)
	payload, err = base64.RawURLEncoding.DecodeString(p[1])
	w.must(err)
	return header, payload
}

func (w *World) claimsOf(token string) claims {
	_, payload := w.parts(token)
	var c claims
	w.must(json.Unmarshal(payload, &c))
	return c
}

// private are the claims below "kubernetes.io".
func (c claims) private() claims {
	p, _ := c["kubernetes.io"].(map[string]any)
	return p
}

// second is a time of the claims, 0 if there is none.
func (c claims) second(name string) int64 {
	t, _ := c[name].(float64)
	return int64(t)
}

// with is a copy with one claim changed, or taken out for nil.
func (c claims) with(name string, value any) claims {
	c = maps.Clone(c)
	if c[name] = value; value == nil {
		delete(c, name)
	}
	return c
}

// resign makes the token anew by the first key of Usual, with one claim changed, or taken out for nil.
func (w *World) resign(token, claim string, value any) string {
	out, err := w.Sign(jose.RS256, w.claimsOf(token).with(claim, value))
	w.must(err)
	return out
}

// token is what an account gets, or the end of the case.
func (w *World) token(account string, tr *authenticationv1.TokenRequest) string {
	return w.granted(account, tr).Status.Token
}

func (w *World) granted(account string, tr *authenticationv1.TokenRequest) *authenticationv1.TokenRequest {
	answer, err := w.requestToken(account, tr)
	w.must(err)
	return answer
}
