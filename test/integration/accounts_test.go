package integration

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/fakeapi"
)

var accountLookups = fakeapi.Match{Verb: "get", Resource: "serviceaccounts"}

// TestServiceAccountLookedUp: long before its tokens are due, the daemon finds that an account was deleted and made
// again. Each is looked up at some time of its own within five minutes: of sixty, the first ones within seconds.
func TestServiceAccountLookedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	check(t, w.api.AddNamespace("demo"))
	const accounts = 60
	old := map[*corev1.Pod]*corev1.ServiceAccount{}
	for n := range accounts {
		account, pod := w.employ(fmt.Sprintf("app-%d", n))
		old[pod] = account
	}
	w.waitPublished(slices.Collect(maps.Keys(old))...)
	anew := map[string]string{} // the UID of the new account, by the path of the old one's token
	for pod, account := range old {
		token := w.path(pod, "vault", "token")
		if got := accountOf(t, token); got != string(account.UID) {
			t.Fatalf("a token of account %s, want %s", got, account.UID)
		}
		check(t, w.api.Delete(account, metav1.DeleteOptions{}))
		made, err := fakeapi.Create(w.api, serviceAccount(account.Name))
		check(t, err)
		anew[token] = string(made.UID)
	}
	followed := func() (n int) {
		for token, uid := range anew {
			if accountOf(t, token) == uid {
				n++
			}
		}
		return n
	}
	eventually(t, "two tokens of new accounts", func() bool { return followed() >= 2 })
	asked := len(w.api.Requests(fakeapi.TokenRequests)) - accounts // before the look-ups are read, which cause them
	lookups := w.api.Requests(accountLookups)
	for _, r := range lookups {
		codes := []int{0, 200, 404} // not answered yet; there; deleted, and not made again yet
		if r.Query != "resourceVersion=0" || !slices.Contains(codes, r.Code) {
			t.Errorf("a look-up with query %q was answered with %d", r.Query, r.Code)
		}
	}
	if asked > len(lookups) || len(lookups) >= accounts {
		t.Errorf("%d tokens of %d were requested after %d look-ups", asked, accounts, len(lookups))
	}
	if got := d.metric("token_projector_service_account_lookups_total", "code", "200"); got < 2 {
		t.Errorf("%v look-ups counted", got)
	}
	d.Terminate()
}
