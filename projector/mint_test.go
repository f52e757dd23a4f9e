package projector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/rotation"
)

// mintFrom returns a Mint on a stock client whose server is handler.
func mintFrom(t *testing.T, timeout time.Duration, handler http.HandlerFunc) Mint {
	t.Helper()
	return NewMint(clientOf(t, handler), timeout)
}

// clientOf is a stock client whose server is handler.
func clientOf(t *testing.T, handler http.HandlerFunc) rest.Interface {
	t.Helper()
	server := httptest.NewServer(handler)
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
	})
	config := &rest.Config{Host: server.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	client, err := kubernetes.NewForConfigAndClient(config, &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return client.CoreV1().RESTClient()
}

// answered is a good answer to request.
func answered() *authenticationv1.TokenRequest {
	return &authenticationv1.TokenRequest{
		TypeMeta:   metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest"},
		ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: "default", CreationTimestamp: metav1.NewTime(issuedAt)},
		Spec:       authenticationv1.TokenRequestSpec{Audiences: []string{"vault"}, ExpirationSeconds: new(int64(600))},
		Status: authenticationv1.TokenRequestStatus{
			Token: altered(nil), ExpirationTimestamp: metav1.NewTime(issuedAt.Add(10 * time.Minute)),
		},
	}
}

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		panic(err)
	}
}

func TestMint(t *testing.T) {
	var path, method string
	var sent authenticationv1.TokenRequest
	mint := mintFrom(t, time.Minute, func(w http.ResponseWriter, r *http.Request) {
		method, path = r.Method, r.URL.String()
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		a := answered()
		a.Status.Token = sign(ofAccount(claimsFor(request, issuedAt, 10*time.Minute), "account-1"))
		reply(w, http.StatusCreated, a)
	})
	got, err := mint(t.Context(), request)
	if err != nil || got.AccountUID != "account-1" {
		t.Fatalf("of account %q, %v", got.AccountUID, err)
	}
	if method != "POST" || path != "/api/v1/namespaces/default/serviceaccounts/default/token" {
		t.Errorf("%s %s", method, path)
	}
	want := authenticationv1.TokenRequestSpec{
		Audiences: []string{"vault"}, ExpirationSeconds: new(int64(600)),
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "pod-1", UID: "uid-1"},
	}
	if diff := cmp.Diff(want, sent.Spec); diff != "" || sent.UID != "" {
		t.Errorf("uid %q %s", sent.UID, diff)
	}
	life := rotation.Lifetime{Issued: issuedAt, Expires: issuedAt.Add(10 * time.Minute)}
	if !got.Lifetime.Issued.Equal(life.Issued) || !got.Lifetime.Expires.Equal(life.Expires) {
		t.Errorf("%+v", got)
	}
	if claims, err := ParseClaims(got.Token.reveal()); err != nil || claims.PodUID != "uid-1" {
		t.Errorf("token %v", err)
	}
}

func TestTokenRequestWithoutAudience(t *testing.T) {
	r := request
	r.Audience = ""
	if got := tokenRequest(r); got.Spec.Audiences != nil {
		t.Errorf("audiences %v: [\"\"] is not what the kubelet asks for", got.Spec.Audiences)
	}
}

// TestMintRefused: what the server says, how it counts, and what it asked for.
func TestMintRefused(t *testing.T) {
	status := func(code int, message string, retryAfter int32) metav1.Status {
		s := metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Code: int32(code), Message: message}
		if retryAfter > 0 {
			s.Details = &metav1.StatusDetails{RetryAfterSeconds: retryAfter}
		}
		return s
	}
	for _, tt := range []struct {
		code     int
		retry    int32
		ofServer bool
	}{
		{400, 0, false}, {401, 0, true}, {403, 0, false}, {404, 0, false}, {409, 0, false}, {422, 0, false},
		{429, 0, true}, {429, 7, true}, {500, 0, true}, {502, 0, true}, {503, 3, true}, {504, 0, true}, {500, 90, true},
	} {
		calls := 0
		mint := mintFrom(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			reply(w, tt.code, status(tt.code, "no, because of "+altered(nil), tt.retry))
		})
		m, err := mint(t.Context(), request)
		e := asMintError(err)
		if e.Code != tt.code || e.RetryAfter != time.Duration(tt.retry)*time.Second || e.ofServer() != tt.ofServer || e.label() != fmt.Sprint(tt.code) {
			t.Errorf("%d: %+v, of the server: %v", tt.code, e, e.ofServer())
		}
		if want := fmt.Sprintf("%d: no, because of [token]", tt.code); e.Error() != want {
			t.Errorf("%q, want %q", e, want)
		}
		if calls != 1 || !m.Token.empty() {
			t.Errorf("%d: %d calls, token %v", tt.code, calls, !m.Token.empty())
		}
	}
}

// TestMintRetryAfterHeader: priority and fairness answers with a header and a line of text.
func TestMintRetryAfterHeader(t *testing.T) {
	calls := 0
	mint := mintFrom(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.Header().Set("Retry-After", "5")
		http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
	})
	_, err := mint(t.Context(), request)
	if e := asMintError(err); e.Code != 429 || e.RetryAfter != 5*time.Second || !e.ofServer() {
		t.Errorf("%+v", e)
	}
	if calls != 1 {
		t.Errorf("%d calls: the client retried behind our back", calls)
	}
}

// TestMintUnanswered: no answer, or none that is one, counts as the server's.
func TestMintUnanswered(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang) // before the servers are closed, which wait for their handlers
	hijack := func(w http.ResponseWriter, text string) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			io.WriteString(conn, text)
			conn.Close()
		}
	}
	for name, handler := range map[string]http.HandlerFunc{
		"hangs": func(w http.ResponseWriter, r *http.Request) { hold(hang, r) },
		"hangs half-way": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"kind":"TokenRequest",`)
			http.NewResponseController(w).Flush()
			hold(hang, r)
		},
		"reset":    func(w http.ResponseWriter, _ *http.Request) { hijack(w, "") },
		"not HTTP": func(w http.ResponseWriter, _ *http.Request) { hijack(w, "220 mail.example.com ESMTP\r\n") },
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
		},
		"not JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(201)
			io.WriteString(w, "<html>"+altered(nil))
		},
	} {
		mint := mintFrom(t, 300*time.Millisecond, handler)
		m, err := mint(t.Context(), request)
		e := asMintError(err)
		if err == nil || e.Code != 0 || !e.ofServer() || e.label() != "none" || strings.Contains(e.Error(), "eyJ") || !m.Token.empty() {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

func hold(hang chan struct{}, r *http.Request) {
	select {
	case <-hang:
	case <-r.Context().Done():
	}
}

func TestMintCancelled(t *testing.T) {
	mint := mintFrom(t, time.Minute, func(http.ResponseWriter, *http.Request) { t.Error("asked") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := mint(ctx, request); err == nil || asMintError(err).Code != 0 {
		t.Errorf("%v", err)
	}
}

// TestMintUnusable: a yes without a token that a reader could use is this
// token's failure, not the server's, and never replaces what is on disk.
func TestMintUnusable(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*authenticationv1.TokenRequest)
		says   string // "": good
	}{
		"good":   {func(*authenticationv1.TokenRequest) {}, ""},
		"opaque": {func(a *authenticationv1.TokenRequest) { a.Status.Token = "opaque" }, ""},
		"clamped": {func(a *authenticationv1.TokenRequest) {
			a.Spec.ExpirationSeconds, a.Status.ExpirationTimestamp = new(int64(60)), metav1.NewTime(issuedAt.Add(time.Minute))
		}, ""},
		"no expirationSeconds": {func(a *authenticationv1.TokenRequest) { a.Spec.ExpirationSeconds = nil }, ""},
		"empty":                {func(a *authenticationv1.TokenRequest) { a.Status.Token = "" }, "no token"},
		"newline":              {func(a *authenticationv1.TokenRequest) { a.Status.Token += "\n" }, "no token"},
		"space":                {func(a *authenticationv1.TokenRequest) { a.Status.Token = "a b" }, "no token"},
		"another audience":     {func(a *authenticationv1.TokenRequest) { a.Status.Token = altered(map[string]any{"aud": "other"}) }, "audience"},
		"another pod":          {func(a *authenticationv1.TokenRequest) { a.Status.Token = altered(map[string]any{"kubernetes.io": nil}) }, "pod"},
		"another account":      {func(a *authenticationv1.TokenRequest) { a.Status.Token = altered(map[string]any{"sub": "x"}) }, "account"},
		"JWT expired": {func(a *authenticationv1.TokenRequest) {
			a.Status.Token = altered(map[string]any{"iat": issuedAt.Unix() - 900, "exp": issuedAt.Unix() - 300})
		}, "lifetime"},
		"opaque, no life":        {func(a *authenticationv1.TokenRequest) { a.Status.Token, a.Spec.ExpirationSeconds = "opaque", nil }, "lifetime"},
		"negative life":          {func(a *authenticationv1.TokenRequest) { a.Spec.ExpirationSeconds = new(int64(-5)) }, "lifetime"},
		"zero life":              {func(a *authenticationv1.TokenRequest) { a.Spec.ExpirationSeconds = new(int64(0)) }, "lifetime"},
		"no expirationTimestamp": {func(a *authenticationv1.TokenRequest) { a.Status.ExpirationTimestamp = metav1.Time{} }, "lifetime"},
		"endless":                {func(a *authenticationv1.TokenRequest) { a.Spec.ExpirationSeconds = new(int64(1 << 62)) }, "lifetime"},
	} {
		answer := answered()
		tt.change(answer)
		m, err := minted(request, answer)
		if tt.says == "" {
			if err != nil || m.Token.empty() || m.Lifetime.TTL() <= 0 {
				t.Errorf("%s: %v, %+v", name, err, m)
			}
			continue
		}
		e, ok := errors.AsType[*MintError](err)
		if !ok || e.Code != unusable || e.ofServer() || e.label() != "unusable" || !strings.Contains(e.Message, tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUntimely probes the edges: good from a minute before its issue, as
// servers forgive, up to its expiry.
func TestUntimely(t *testing.T) {
	life := rotation.Lifetime{Issued: issuedAt, Expires: issuedAt.Add(10 * time.Minute)}
	for now, says := range map[time.Duration]string{
		-time.Hour: "not valid yet", -time.Minute - 1: "not valid yet", -time.Minute: "", 0: "",
		10*time.Minute - 1: "", 10 * time.Minute: "expired", time.Hour: "expired",
	} {
		m := Minted{Lifetime: life}
		err := m.untimely(issuedAt.Add(now))
		if (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says) || asMintError(err).ofServer()) {
			t.Errorf("at %v: %v", now, err)
		}
	}
}

// TestMintedLifetime: the answer's word counts, not the wish, nor a JWT's own
// exp when that is later.
func TestMintedLifetime(t *testing.T) {
	year := altered(map[string]any{"exp": issuedAt.Unix() + 31536000})
	shorter := altered(map[string]any{"exp": issuedAt.Unix() + 300})
	for name, tt := range map[string]struct {
		token   string
		seconds int64
		life    time.Duration
	}{
		"as asked": {altered(nil), 600, 10 * time.Minute}, "clamped": {altered(nil), 60, time.Minute},
		"JWT of a year": {year, 600, 10 * time.Minute}, "JWT shorter": {shorter, 600, 5 * time.Minute},
		"lengthened": {year, 7200, 2 * time.Hour}, "opaque": {"opaque", 600, 10 * time.Minute},
	} {
		answer := answered()
		answer.Status.Token, answer.Spec.ExpirationSeconds = tt.token, &tt.seconds
		answer.Status.ExpirationTimestamp = metav1.NewTime(issuedAt.Add(time.Duration(tt.seconds) * time.Second))
		m, err := minted(request, answer)
		if err != nil || !m.Lifetime.Issued.Equal(issuedAt) || m.Lifetime.TTL() != tt.life {
			t.Errorf("%s: %v, %+v", name, err, m.Lifetime)
		}
	}
}

func TestAsMintError(t *testing.T) {
	own := MintError{Code: 403, RetryAfter: time.Second, Message: "m"}
	if got := asMintError(fmt.Errorf("wrapped: %w", &own)); *got != own {
		t.Errorf("%+v", got)
	}
	own.Message = "refused: " + altered(nil)
	if got := asMintError(&own); got.Message != "refused: [token]" || got.Code != 403 || !strings.Contains(own.Message, "eyJ") {
		t.Errorf("another's Mint: %+v", got)
	}
	got := asMintError(errors.New("dial with " + altered(nil)))
	if got.Code != 0 || got.Error() != "dial with [token]" || !got.ofServer() {
		t.Errorf("%+v", got)
	}
}

// TestHearServer: every answer with a Date is heard, with the times around it.
func TestHearServer(t *testing.T) {
	ticks := time.Duration(0)
	clock := func() rotation.Time {
		ticks += time.Second
		return rotation.Time{Mono: ticks}
	}
	date, failure := "", error(nil)
	inner := roundTripper(func(*http.Request) (*http.Response, error) {
		ticks += time.Minute
		h := http.Header{}
		h.Set("Date", date)
		return &http.Response{Header: h}, failure
	})
	var heard []time.Duration
	var server time.Time
	hearing := HearServer(inner, clock, func(at time.Time, sent, received rotation.Time) {
		server, heard = at, append(heard, received.Mono-sent.Mono)
	})
	date = issuedAt.Format(http.TimeFormat)
	hearing.RoundTrip(nil)
	if !server.Equal(issuedAt) || len(heard) != 1 || heard[0] != time.Minute+time.Second {
		t.Errorf("%v %v", server, heard)
	}
	for _, date = range []string{"", "yesterday"} {
		hearing.RoundTrip(nil)
	}
	failure = io.ErrUnexpectedEOF
	if _, err := hearing.RoundTrip(nil); err != failure {
		t.Error(err)
	}
	if len(heard) != 1 {
		t.Errorf("heard %v", heard)
	}
}
