package integration

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// echo is what a server says that repeats what it was sent, and more: a token that it has issued, on several lines.
func (w *world) echo() string {
	w.t.Helper()
	check(w.t, w.api.AddNamespace("demo"))
	client, err := w.api.Clientset()
	check(w.t, err)
	answer, err := client.CoreV1().ServiceAccounts("demo").CreateToken(w.t.Context(), "default", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))},
	}, metav1.CreateOptions{})
	check(w.t, err)
	said := "admission webhook denied:\nAuthorization: Bearer " + answer.Status.Token + "\n\x1b[31m" + strings.Repeat("and so on ", 10_000)
	if n := daemontest.Leaked(said, w.api.TokenBytes()); n != 1 {
		w.t.Fatalf("%d tokens in what is to be said", n)
	}
	return said
}

// TestHostileAnswers: whatever is asked for, the server refuses it with a text that holds a token, an Authorization header
// and escape sequences. The log, in either format, and the events say that it was refused, and nothing of those. (That
// there is no token in them is looked for in every test of this package.)
func TestHostileAnswers(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{})
			said := w.echo()
			v := tokenVolume("mixed", "vault", 600)
			v.Projected.Sources = append(v.Projected.Sources, corev1.VolumeProjection{
				Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "keys"}},
			})
			refuse := func(m fakeapi.Match, code, times int) {
				w.api.Inject(fakeapi.Fault{Match: m, Times: times, Action: fakeapi.Fail, Code: code, Message: said})
			}
			refuse(fakeapi.Match{Resource: "pods"}, http.StatusInternalServerError, 2)
			refuse(fakeapi.Match{Resource: "secrets"}, http.StatusForbidden, 0)
			refuse(fakeapi.Match{Resource: "events"}, http.StatusUnprocessableEntity, 1)
			refuse(fakeapi.Match{Verb: "get", Resource: "serviceaccounts"}, http.StatusForbidden, 0)
			web := fakeapi.TokenRequests
			web.Namespace = "refused"
			refuse(web, http.StatusForbidden, 0)
			d := w.start("--log-format", format)
			w.pod("demo", "web", v)
			w.pod("refused", "web", tokenVolume("vault", "vault", 600))
			w.waitPublished(w.pod("well", "web"))
			for _, msg := range []string{
				"pods cannot be watched; serving those known so far", "Failed to watch", "volume is not as wanted", "Server rejected event (will not retry!)",
			} {
				if text := fmt.Sprint(d.Line(msg)); !strings.Contains(text, "Bearer [token]") {
					t.Errorf("%q does not repeat the server's word: %s", msg, projector.Scrub(text))
				}
			}
			eventually(t, "an event that repeats it", func() bool {
				events, err := fakeapi.List[*corev1.Event](w.api, "")
				check(t, err)
				for _, e := range events {
					if strings.Contains(e.Message, "Bearer [token]") {
						wantPlain(t, e.Message, 1024)
						return true
					}
				}
				return false
			})
			d.Terminate()
			for line := range strings.Lines(d.Output()) {
				wantPlain(t, strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "\t", " "), 20<<10)
			}
		})
	}
}

// wantPlain fails the test if a text is longer than that, or does more to a terminal than to be shown.
func wantPlain(t *testing.T, text string, bound int) {
	t.Helper()
	if strings.IndexFunc("\x1b[31m", unprintable) < 0 {
		t.Fatal("the check misses a planted escape sequence")
	}
	if len(text) > bound || strings.IndexFunc(text, unprintable) >= 0 {
		t.Errorf("%d bytes, or unprintable: %s", len(text), projector.Scrub(text))
	}
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// TestSecretsStaySecret: a Secret that is projected, altered on disk, repaired and changed shows nowhere else.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 5 * time.Second})
	check(t, w.api.AddNamespace("demo"))
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "keys"},
		Data:       map[string][]byte{"key": []byte("Yq3vT8pLw2Zr6Xc9Kd4Hn7Jb5Mf1Gs0A")},
	}
	secret, err := fakeapi.Create(w.api, secret)
	check(t, err)
	v := tokenVolume("mixed", "vault", 600)
	v.Projected.Sources = append(v.Projected.Sources, corev1.VolumeProjection{
		Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "keys"}},
	})
	d := w.start()
	pod := w.pod("demo", "web", v)
	w.waitPublished(pod)
	path := w.path(pod, "mixed", "key")
	for _, value := range []string{"Bn5Vc7Xq1Wz9Lk3Jh8Gf2Dp6Ts4Ry0Ue", "Ue0yR4sT6pD2fG8hJ3kL9zW1qX7cV5nB"} {
		secret.Data["key"], secret.ResourceVersion = []byte(value), ""
		secret, err = fakeapi.Update(w.api, secret)
		check(t, err)
		is := func() bool { data, _ := os.ReadFile(path); return string(data) == value }
		eventually(t, "the new value on disk", is)
		check(t, os.WriteFile(path, []byte("altered"), 0o644))
		eventually(t, "the repair", is)
		d.Scrape() // where what is secret now is taken in
	}
	d.Terminate()
}
