package fakeapi

import "testing"

// Of an issuer that is not fit for OIDC there are no documents.
func TestNoDiscovery(t *testing.T) {
	t.Parallel()
	for issuer, code := range map[string]int{
		"https://issuer.example": 200, "https://issuer.example/a/b": 200, "http://issuer.example": 404, "issuer": 404,
		"https://issuer.example?a=b": 404, "https://issuer.example#a": 404,
	} {
		s := start(t, Options{Issuers: []string{issuer}})
		for _, path := range []string{"/.well-known/openid-configuration", "/openid/v1/jwks"} {
			if r := do(t, s, "GET", path, nil); r.code != code {
				t.Errorf("%s of issuer %s: got %d, want %d", path, issuer, r.code, code)
			}
		}
	}
}
