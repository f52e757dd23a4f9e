package projector

import (
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestContractTokenInsideState: package fmt does not call the methods of unexported
// fields, nor any for %p and %w, so a careless %v of our own state must not show a
// token either.
func TestContractTokenInsideState(t *testing.T) {
	const secret = "q7wZ0secretK9"
	inside := token{fresh: NewToken(secret)}
	for _, v := range []any{NewToken(secret), inside, &inside, &volume{tokens: []token{inside}}} {
		if where := prints(v, secret, formatted+"pw"); len(where) > 0 {
			t.Errorf("%T prints with %q", v, where)
		}
	}
}

// TestContractForeignBodyIsNotQuoted: clientError promises that only a Status which the
// server composed is quoted; a line of text may hold anything.
func TestContractForeignBodyIsNotQuoted(t *testing.T) {
	mint := mintFrom(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "upstream refused credential "+planted, http.StatusBadGateway)
	})
	_, err := mint(t.Context(), request)
	if e := asMintError(err); e.Code != 502 || leaks(e.Error()) {
		t.Errorf("%v", e)
	}
}

// TestContractUnusableAnswers: a yes without a token to publish is 201 and the
// token's own failure, as MintError documents.
func TestContractUnusableAnswers(t *testing.T) {
	for name, change := range map[string]func(*authenticationv1.TokenRequest){
		"no times": func(a *authenticationv1.TokenRequest) {
			a.Status.ExpirationTimestamp, a.CreationTimestamp = metav1.Time{}, metav1.Time{}
		},
		"larger than a file may be": func(a *authenticationv1.TokenRequest) { a.Status.Token = strings.Repeat("a", 3<<20) },
	} {
		answer := answered()
		change(answer)
		if m, err := minted(request, answer); err == nil {
			t.Errorf("%s: accepted, lifetime %v to %v", name, m.Lifetime.Issued, m.Lifetime.Expires)
		}
	}
	mint := mintFrom(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		w.Write([]byte("{]"))
	})
	// Whatever garbles one answer may garble all: that is no answer, the server's failure.
	_, err := mint(t.Context(), request)
	if e := asMintError(err); e.Code != 0 || !e.ofServer() {
		t.Errorf("garbled: %+v, want code 0", e)
	}
}

// TestContractOldAnswersAreNotAskedAgainAtOnce: a token that came with little of its life
// left is due at its floor, a tenth of the lifetime after it came.
func TestContractOldAnswersAreNotAskedAgainAtOnce(t *testing.T) {
	r := newRig(t)
	r.answer = func(q Request) (Minted, error) {
		m, _ := r.good(q)
		m.Lifetime.Issued, m.Lifetime.Expires = m.Lifetime.Issued.Add(-9*time.Minute), m.Lifetime.Expires.Add(-9*time.Minute)
		return m, nil
	}
	r.apply(lonePod(1, 600))
	r.run(10 * time.Minute)
	if got := len(r.requests); got > 11 || got < 10 {
		t.Errorf("%d requests in ten minutes, want one a minute", got)
	}
}
