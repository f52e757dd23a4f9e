package projector

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
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

// TestContractRefusedObject: what an object last held stays when it may no longer be
// read, and the volume says so; an outage alone is no news of the object.
func TestContractRefusedObject(t *testing.T) {
	r := newRig(t)
	r.apply(testPod(1, "", 0))
	r.touchCA()
	r.drain()
	v := r.volume(access(1))
	before := len(r.files[access(1)])
	r.s.untouchable(rootCA, "connection refused", false, r.now)
	if v.condition() != "ready" {
		t.Errorf("an outage makes the volume %s: %v", v.condition(), v.err)
	}
	r.s.untouchable(rootCA, "forbidden", true, r.now)
	r.run(time.Minute)
	if v.err == nil || v.err.Reason != ReasonUnreadable || len(r.files[access(1)]) != before {
		t.Errorf("%v, %d files, want %d", v.err, len(r.files[access(1)]), before)
	}
	r.s.untouchable(rootCA, "", false, r.now)
	if v.condition() != "ready" {
		t.Errorf("readable again, and %s: %v", v.condition(), v.err)
	}
}

// TestContractLeftoverDelaysNoRefresh: an old version that cannot be swept is reported,
// and what was published counts.
func TestContractLeftoverDelaysNoRefresh(t *testing.T) {
	r := newRig(t)
	r.apply(lonePod(1, 3600))
	publish := r.until(isPublish)
	result := r.publish(publish.publish)
	r.flying = nil
	r.s.finishPublish(publish.publish, result, found{leftover: errors.New("device or resource busy")}, r.now)
	v := r.volume(extra(1))
	if !v.whole || len(r.published) != 1 || v.err == nil || v.err.Reason != ReasonDisk {
		t.Errorf("whole %v, notified %d times, %v", v.whole, len(r.published), v.err)
	}
}

// TestContractShadowedByItem: a token whose file a later configMap item overwrites is
// not asked for; an optional one might not come.
func TestContractShadowedByItem(t *testing.T) {
	for optional, want := range map[bool]int{false: 1, true: 2} {
		item := configMapSource("settings", "token")
		item.ConfigMap.Optional = &optional
		pod := testPod(1, "", 0)
		pod.Spec.Volumes = []corev1.Volume{projected("v", tokenSource("", 600, "token"), item, tokenSource("", 600, "other"))}
		if got := len(newTokens(Key{}, &Desired(pod, SelectAll).Volumes[0])); got != want {
			t.Errorf("optional %v: %d tokens, want %d", optional, got, want)
		}
	}
}

// TestContractUnfinishedMarker: a crash while the marker was written does not lock the
// root for ever.
func TestContractUnfinishedMarker(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, markerName), []byte(markerText[:9]), 0o600); err != nil {
		t.Fatal(err)
	}
	openTestRoot(t, dir).Close()
	if got, err := os.ReadFile(filepath.Join(dir, markerName)); string(got) != markerText {
		t.Errorf("%q, %v", got, err)
	}
}
