package fakeapi

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// tokenWorld is a server with one object of each kind that a token can be bound to.
type tokenWorld struct {
	*Server
	pod, other *corev1.Pod
	secret     *corev1.Secret
	account    *corev1.ServiceAccount
}

func newTokenWorld(t testing.TB, opts Options) *tokenWorld {
	t.Helper()
	s := start(t, opts)
	w := &tokenWorld{Server: s}
	mustCreate(t, s, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "other"}})
	w.pod = mustCreate(t, s, newPod("web"))
	other := newPod("other")
	other.Spec.ServiceAccountName = "other"
	w.other = mustCreate(t, s, other)
	w.secret = mustCreate(t, s, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bound"}})
	var err error
	if w.account, err = Get[*corev1.ServiceAccount](s, "default", "default"); err != nil {
		t.Fatal(err)
	}
	return w
}

func ref(apiVersion, kind, name string, uid types.UID) *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid}
}

// Every refusal, each with the status and the words of the real server. Rows that break two rules show which comes first.
func TestTokenRequestRefusals(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{})
	for _, c := range []struct {
		name    string
		account string // "" is default
		edit    func(*authenticationv1.TokenRequest)
		code    int32
		reason  metav1.StatusReason
		message string
	}{
		{"namespace before name", "", func(r *authenticationv1.TokenRequest) { r.Namespace, r.Name = "kube-system", "x" },
			400, metav1.StatusReasonBadRequest, "the namespace of the provided object does not match the namespace sent on the request"},
		{"name before account", "missing", func(r *authenticationv1.TokenRequest) { r.Name = "x" },
			422, metav1.StatusReasonInvalid, `TokenRequest.authentication.k8s.io "missing" is invalid: metadata.name: Invalid value: "x": must match the service account name if specified`},
		{"account before uid and expiration", "missing", func(r *authenticationv1.TokenRequest) { r.UID = "a"; *r.Spec.ExpirationSeconds = 1 },
			404, metav1.StatusReasonNotFound, `serviceaccounts "missing" not found`},
		{"uid before expiration", "", func(r *authenticationv1.TokenRequest) { r.UID = "a"; *r.Spec.ExpirationSeconds = 1 },
			409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on TokenRequest.authentication.k8s.io "default": the UID in the token request (a) does not match the UID of the service account (` + string(w.account.UID) + `)`},
		{"too short before bound object", "", func(r *authenticationv1.TokenRequest) {
			*r.Spec.ExpirationSeconds = 599
			r.Spec.BoundObjectRef = ref("v1", "Pod", "missing", "")
		}, 422, metav1.StatusReasonInvalid, `TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes`},
		{"too long", "", func(r *authenticationv1.TokenRequest) { *r.Spec.ExpirationSeconds = 1<<32 + 1 },
			422, metav1.StatusReasonInvalid, `TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds`},
		{"pod missing", "", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = ref("v1", "Pod", "missing", "") },
			404, metav1.StatusReasonNotFound, `pods "missing" not found`},
		{"pod of another account before its uid", "", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = ref("v1", "Pod", "other", "u") },
			400, metav1.StatusReasonBadRequest, `cannot bind token for serviceaccount "default" to pod running with different serviceaccount name.`},
		{"pod uid", "", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = ref("v1", "Pod", "web", "u") },
			409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on Pod "web": the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated`},
		{"node missing", "", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = ref("v1", "Node", "missing", "") },
			404, metav1.StatusReasonNotFound, `nodes "missing" not found`},
		{"node uid", "", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = ref("v1", "Node", "node-1", "u") },
			409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on Node "node-1": the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated`},
		{"secret missing", "", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = ref("v1", "Secret", "missing", "") },
			404, metav1.StatusReasonNotFound, `secrets "missing" not found`},
		{"secret uid", "", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = ref("v1", "Secret", "bound", "u") },
			409, metav1.StatusReasonConflict, `Operation cannot be fulfilled on Secret "bound": the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated`},
		{"another kind", "", func(r *authenticationv1.TokenRequest) {
			r.Spec.BoundObjectRef = ref("apps/v1", "Deployment", "web", "")
		}, 400, metav1.StatusReasonBadRequest, "cannot bind token to object of type apps/v1, Kind=Deployment"},
		{"a pod of another group", "", func(r *authenticationv1.TokenRequest) { r.Spec.BoundObjectRef = ref("x/v1", "Pod", "web", "") },
			400, metav1.StatusReasonBadRequest, "cannot bind token to object of type x/v1, Kind=Pod"},
	} {
		t.Run(c.name, func(t *testing.T) {
			account := c.account
			if account == "" {
				account = "default"
			}
			seconds := int64(600)
			tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
			c.edit(tr)
			_, err := clientset(t, w.Server).CoreV1().ServiceAccounts("default").CreateToken(testContext(t), account, tr, metav1.CreateOptions{})
			var api apierrors.APIStatus
			if !asStatus(err, &api) {
				t.Fatalf("got %v, want a status", err)
			}
			if st := api.Status(); st.Code != c.code || st.Reason != c.reason || st.Message != c.message {
				t.Errorf("got  %d %s %q\nwant %d %s %q", st.Code, st.Reason, st.Message, c.code, c.reason, c.message)
			}
		})
	}
	if n := len(w.TokenBytes()); n != 0 {
		t.Errorf("%d tokens were issued all the same", n)
	}
}

func asStatus(err error, target *apierrors.APIStatus) bool {
	api, ok := err.(apierrors.APIStatus)
	*target = api
	return ok
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

func TestTokenShape(t *testing.T) {
	t.Parallel()
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			now := time.Date(2031, 5, 6, 7, 8, 9, 987654321, time.UTC)
			w := newTokenWorld(t, Options{SigningAlg: alg, Now: func() time.Time { return now }})
			tr := mustToken(t, w.Server, "default", podTokenRequest(w.pod, "vault", 7200))
			header, claims := verified(t, w.Server, tr.Status.Token)
			der, err := x509.MarshalPKIXPublicKey(w.Keys().Keys[0].Key)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(der)
			if diff := cmp.Diff(map[string]any{"alg": string(alg), "kid": base64.RawURLEncoding.EncodeToString(sum[:])}, header); diff != "" {
				t.Errorf("header: -want +got\n%s", diff)
			}
			node, err := Get[*corev1.Node](w.Server, "", "node-1")
			if err != nil {
				t.Fatal(err)
			}
			iat := float64(now.Unix())
			if jti, _ := claims["jti"].(string); len(jti) != 36 {
				t.Errorf("jti %q is no UUID", jti)
			}
			delete(claims, "jti")
			want := map[string]any{
				"aud": []any{"vault"}, "exp": iat + 7200, "iat": iat, "nbf": iat,
				"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:default:default",
				"kubernetes.io": map[string]any{
					"namespace":      "default",
					"serviceaccount": map[string]any{"name": "default", "uid": string(w.account.UID)},
					"pod":            map[string]any{"name": "web", "uid": string(w.pod.UID)},
					"node":           map[string]any{"name": "node-1", "uid": string(node.UID)},
				},
			}
			if diff := cmp.Diff(want, claims); diff != "" {
				t.Errorf("claims: -want +got\n%s", diff)
			}
			wantMeta := metav1.ObjectMeta{Namespace: "default", Name: "default", UID: w.account.UID, CreationTimestamp: metav1.NewTime(now.Truncate(time.Second).Local())}
			if diff := cmp.Diff(wantMeta, tr.ObjectMeta); diff != "" {
				t.Errorf("metadata: -want +got\n%s", diff)
			}
			if got, want := tr.Status.ExpirationTimestamp.Unix(), now.Unix()+7200; got != want {
				t.Errorf("the answer says it expires at %d, want %d", got, want)
			}
			if got := w.TokenBytes(); len(got) != 1 || string(got[0]) != tr.Status.Token {
				t.Errorf("TokenBytes has %d tokens, want exactly the one issued", len(got))
			}
		})
	}
}

// What each binding, audience and lifetime makes of the claims and of the answer.
func TestTokenContent(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{APIAudiences: []string{"api", "api2"}})
	ghost := newPod("ghost")
	ghost.Spec.NodeName = "gone"
	ghost = mustCreate(t, w.Server, ghost)
	for _, c := range []struct {
		name      string
		audiences []string
		expires   *int64
		ref       *authenticationv1.BoundObjectReference
		wantAud   []string
		wantSpec  int64
		wantExp   int64 // of the token
		warnAfter int64 // 0: none
		bound     []string
	}{
		{"nothing asked", nil, nil, nil, []string{"api", "api2"}, 3600, 3600, 0, nil},
		{"injected", nil, new(int64(3607)), ref("v1", "Pod", "web", ""), []string{"api", "api2"}, 3607, 31536000, 3607, []string{"node", "pod"}},
		{"injected, part of the API's audiences", []string{"api2"}, new(int64(3607)), ref("v1", "Pod", "web", ""), []string{"api2"}, 3607, 31536000, 3607, []string{"node", "pod"}},
		{"one second less", nil, new(int64(3606)), ref("v1", "Pod", "web", ""), []string{"api", "api2"}, 3606, 3606, 0, []string{"node", "pod"}},
		{"one second more", nil, new(int64(3608)), ref("v1", "Pod", "web", ""), []string{"api", "api2"}, 3608, 3608, 0, []string{"node", "pod"}},
		{"injected, foreign audience", []string{"api", "x"}, new(int64(3607)), ref("v1", "Pod", "web", ""), []string{"api", "x"}, 3607, 3607, 0, []string{"node", "pod"}},
		{"injected, unbound", nil, new(int64(3607)), nil, []string{"api", "api2"}, 3607, 3607, 0, nil},
		{"any version", nil, new(int64(600)), ref("v9", "Pod", "web", w.pod.UID), []string{"api", "api2"}, 600, 600, 0, []string{"node", "pod"}},
		{"unknown node", nil, new(int64(600)), ref("v1", "Pod", "ghost", ghost.UID), []string{"api", "api2"}, 600, 600, 0, []string{"node without uid", "pod"}},
		{"secret", nil, new(int64(600)), ref("v1", "Secret", "bound", w.secret.UID), []string{"api", "api2"}, 600, 600, 0, []string{"secret"}},
		{"node", nil, new(int64(600)), ref("v1", "Node", "node-1", ""), []string{"api", "api2"}, 600, 600, 0, []string{"node"}},
		{"longest", nil, new(int64(1 << 32)), nil, []string{"api", "api2"}, 1 << 32, 1 << 32, 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := mustToken(t, w.Server, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
				Audiences: c.audiences, ExpirationSeconds: c.expires, BoundObjectRef: c.ref}})
			_, claims := verified(t, w.Server, tr.Status.Token)
			iat := int64(claims["iat"].(float64))
			if got := int64(claims["exp"].(float64)) - iat; got != c.wantExp {
				t.Errorf("the token lives %d s, want %d", got, c.wantExp)
			}
			if got := tr.Status.ExpirationTimestamp.Unix() - iat; *tr.Spec.ExpirationSeconds != c.wantSpec || got != c.wantSpec {
				t.Errorf("the answer says %d s and ends after %d, want %d", *tr.Spec.ExpirationSeconds, got, c.wantSpec)
			}
			if diff := cmp.Diff(c.wantAud, tr.Spec.Audiences); diff != "" {
				t.Errorf("audiences: -want +got\n%s", diff)
			}
			private := claims["kubernetes.io"].(map[string]any)
			warn, _ := private["warnafter"].(float64)
			if want := c.warnAfter; want > 0 && int64(warn)-iat != want || want == 0 && warn != 0 {
				t.Errorf("warnafter is %v, want iat + %d", warn, want)
			}
			if diff := cmp.Diff(c.bound, boundTo(private)); diff != "" {
				t.Errorf("bound to: -want +got\n%s", diff)
			}
		})
	}
}

func boundTo(private map[string]any) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(private)) {
		if k == "pod" || k == "node" || k == "secret" {
			if private[k].(map[string]any)["uid"] == nil {
				k += " without uid"
			}
			out = append(out, k)
		}
	}
	return out
}

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

func BenchmarkTokenRequest(b *testing.B) {
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256} {
		b.Run(string(alg), func(b *testing.B) {
			w := newTokenWorld(b, Options{SigningAlg: alg, Forgetful: true})
			accounts := clientset(b, w.Server).CoreV1().ServiceAccounts("default")
			ctx := b.Context()
			b.SetParallelism(8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := accounts.CreateToken(ctx, "default", podTokenRequest(w.pod, "vault", 600), metav1.CreateOptions{}); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
