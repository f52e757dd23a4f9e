package conformance

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Service accounts that are deleted and made again: the server refuses the tokens on disk, until the daemon has looked
// the account up. It looks each up at some time of its own within five minutes: of sixty, the first one within seconds.
func TestServiceAccountsMadeAnew(t *testing.T) {
	const accounts = 60
	n := emptyNode(t, "node-accounts")
	createNamespace(t, n.name)
	for i := range accounts {
		account := n.makeAccount(t, fmt.Sprintf("app-%d", i))
		n.pods = append(n.pods, createPod(t, newPod(n.name, account.Name, account.Name, n.name, vault(3600))))
	}
	n.start(t)
	n.awaitFiles(t, n.pods...)
	for _, pod := range n.pods {
		name := pod.Spec.ServiceAccountName
		if err := client.CoreV1().ServiceAccounts(n.name).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		n.makeAccount(t, name)
	}
	last := n.pods[accounts-1]
	eventually(t, func() error { // the server's cache may lag
		if err := n.vaultToken(t, last); err == nil || !strings.Contains(err.Error(), "does not match claim") {
			return fmt.Errorf("the dead account's token is reviewed as: %v", err)
		}
		return nil
	})
	eventually(t, func() error {
		var all []error
		for _, pod := range n.pods {
			err := n.vaultToken(t, pod)
			if err == nil {
				return nil
			}
			all = append(all, err)
		}
		return errors.Join(all...)
	})
	n.checkLookups(t)
	if err := n.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	wantNoLeak(t, n.logFile, n.seen)
}

func (n *node) makeAccount(t *testing.T, name string) *corev1.ServiceAccount {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	return must[*corev1.ServiceAccount](t)(client.CoreV1().ServiceAccounts(n.name).Create(t.Context(), account, metav1.CreateOptions{}))
}

// vaultToken says why the server does not accept the pod's token for vault.
func (n *node) vaultToken(t *testing.T, pod *corev1.Pod) error {
	t.Helper()
	token := readToken(t, volumeDir(n.root, pod, vaultVolume), vaultFile)
	n.seen = append(n.seen, token)
	return notTokenOf(review(t, token, vaultAud), pod)
}

// checkLookups wants the Node authorizer to have allowed every look-up, and each to have asked for what is in the cache.
func (n *node) checkLookups(t *testing.T) {
	t.Helper()
	lookups, err := plane.AuditEvents(func(e *auditv1.Event) bool {
		return e.Verb == "get" && e.ObjectRef != nil && e.ObjectRef.Resource == "serviceaccounts" &&
			e.User.Username == n.user && e.Stage == auditv1.StageResponseComplete
	})
	if err != nil || len(lookups) == 0 {
		t.Errorf("%d look-ups, %v", len(lookups), err)
	}
	for _, e := range lookups {
		if e.ResponseStatus.Code != 200 || !strings.HasSuffix(e.RequestURI, "?resourceVersion=0") {
			t.Errorf("%s was answered with %d", e.RequestURI, e.ResponseStatus.Code)
		}
	}
}
