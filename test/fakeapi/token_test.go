package fakeapi

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tokenWorld is a server with a pod that a token can be bound to.
type tokenWorld struct {
	*Server
	pod *corev1.Pod
}

func newTokenWorld(t testing.TB, opts Options) *tokenWorld {
	t.Helper()
	s := start(t, opts)
	return &tokenWorld{s, mustCreate(t, s, newPod("web"))}
}

// verified checks a token's signature against the published keys and returns header and claims, with nothing lost.
func verified(t testing.TB, s *Server, token string) (header, claims map[string]any) {
	t.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		t.Fatal("the token does not parse")
	}
	published := s.Keys()
	keys := published.Key(jws.Signatures[0].Header.KeyID)
	if len(keys) != 1 {
		t.Fatalf("%d published keys have the token's kid, want 1", len(keys))
	}
	payload, err := jws.Verify(keys[0])
	if err != nil {
		t.Fatal("the signature is wrong")
	}
	head, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	for raw, into := range map[string]*map[string]any{string(head): &header, string(payload): &claims} {
		if err := json.Unmarshal([]byte(raw), into); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func mustToken(t testing.TB, s *Server, account string, tr *authenticationv1.TokenRequest) *authenticationv1.TokenRequest {
	t.Helper()
	out, err := clientset(t, s).CoreV1().ServiceAccounts("default").CreateToken(testContext(t), account, tr, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A lifetime of seconds, which the real server's option does not allow.
func TestTokenClamp(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{MaxTokenExpiration: 20 * time.Second})
	req := mustProto(t, podTokenRequest(w.pod, "", 3607))
	resp := do(t, w.Server, "POST", "/api/v1/namespaces/default/serviceaccounts/default/token", req, "Content-Type", protobufType)
	tr := &authenticationv1.TokenRequest{}
	decodeJSON(t, resp, 201, tr)
	if got, want := resp.header.Get("Warning"), `299 - "requested expiration of 3607 seconds shortened to 20 seconds"`; got != want {
		t.Errorf("got the warning %q, want %q", got, want)
	}
	_, claims := verified(t, w.Server, tr.Status.Token)
	if got := claims["exp"].(float64) - claims["iat"].(float64); got != 20 || *tr.Spec.ExpirationSeconds != 20 {
		t.Errorf("the token lives %v s, the answer says %d, want 20: the clamp comes before the extension", got, *tr.Spec.ExpirationSeconds)
	}
}

// Issuers and keys change while the server runs. Each key and each issuer that is taken away ends its tokens, at once.
func TestMigration(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{APIAudiences: []string{"api"}})
	newKey, err := NewSigningKey(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	oldKey, oldIssuer := w.opts.SigningKeys[0], w.opts.Issuers[0]
	token := func() string {
		return mustToken(t, w.Server, "default", podTokenRequest(w.pod, "api", 600)).Status.Token
	}
	first := token()
	for i, step := range []struct {
		keys        []crypto.Signer
		issuers     []string
		firstIsGood bool
	}{
		{[]crypto.Signer{oldKey}, []string{oldIssuer}, true},
		{[]crypto.Signer{oldKey, newKey}, []string{oldIssuer, "https://new"}, true},
		{[]crypto.Signer{newKey, oldKey}, []string{"https://new", oldIssuer}, true},
		{[]crypto.Signer{newKey}, []string{"https://new", oldIssuer}, false},
		{[]crypto.Signer{newKey, oldKey}, []string{"https://new"}, false},
	} {
		w.SetIssuers(step.issuers[0], step.issuers[1:]...)
		if err := w.SetSigningKeys(step.keys[0], step.keys[1:]...); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.authenticateToken(first, w.apiAudiences()); (err == nil) != step.firstIsGood {
			t.Errorf("step %d: the first token: %v", i, err)
		}
		now := token()
		if _, _, err := w.authenticateToken(now, w.apiAudiences()); err != nil {
			t.Errorf("step %d: a new token: %v", i, err)
		}
		header, claims := verified(t, w.Server, now)
		if header["kid"] != w.Keys().Keys[0].KeyID || claims["iss"] != step.issuers[0] || len(w.Keys().Keys) != len(step.keys) {
			t.Errorf("step %d: header %v, issuer %v, keys %v", i, header, claims["iss"], w.Keys())
		}
	}
}

// What was issued, and who came with it, is on record.
func TestTokensAreRecorded(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{})
	token := mustToken(t, w.Server, "default", podTokenRequest(w.pod, "", 600)).Status.Token
	if got := w.TokenBytes(); len(got) != 1 || string(got[0]) != token {
		t.Errorf("TokenBytes has %d tokens, want exactly the one issued", len(got))
	}
	w.ForgetRequests()
	for _, c := range []struct{ bearer, user string }{{token, "system:serviceaccount:default:default"}, {token + "x", ""}} {
		do(t, w.Server, "GET", "/api/v1/nodes/node-1", nil, "Authorization", "Bearer "+c.bearer)
		if got := w.Requests(Match{}); got[len(got)-1].User != c.user {
			t.Errorf("user %q, want %q", got[len(got)-1].User, c.user)
		}
	}
}
