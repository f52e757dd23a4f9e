package cases

import (
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const accountsGroup = "Service accounts"

// accounts: what admission and the controllers do about service accounts.
func accounts() []Case {
	return slices.Concat(controllers(), admission(), mirrorPods(), longLivedTokens())
}

func (w *World) readAccount(name string) (*corev1.ServiceAccount, error) {
	return w.Client.CoreV1().ServiceAccounts(w.NS).Get(w.Ctx, name, metav1.GetOptions{})
}

func (w *World) deleteAccount(name string) {
	w.must(w.Client.CoreV1().ServiceAccounts(w.NS).Delete(w.Ctx, name, metav1.DeleteOptions{}))
}

const rootCA = "kube-root-ca.crt"

func (w *World) configMap(name string) (*corev1.ConfigMap, error) {
	return w.Client.CoreV1().ConfigMaps(w.NS).Get(w.Ctx, name, metav1.GetOptions{})
}

func controllers() []Case { return append(accountControllers(), rootCAControllers()...) }

// accountControllers keep the accounts of a namespace.
func accountControllers() []Case {
	return []Case{
		{Group: accountsGroup, Name: "a new namespace gets the account default, with nothing in it", Run: func(w *World) {
			account, err := w.readAccount("default")
			w.must(err)
			want := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.NS, Name: "default", UID: account.UID, ResourceVersion: account.ResourceVersion, CreationTimestamp: account.CreationTimestamp}}
			w.wantEqual("account", account, want)
		}},
		{Group: accountsGroup, Name: "a new namespace gets kube-root-ca.crt, which holds the CA of the server", Run: func(w *World) {
			w.must(w.checkRootCA())
		}},
		{Group: accountsGroup, Name: "the account default is made anew when it is deleted", Run: func(w *World) {
			old, err := w.readAccount("default")
			w.must(err)
			w.deleteAccount("default")
			w.eventually(func() error {
				account, err := w.readAccount("default")
				if err == nil && account.UID == old.UID {
					err = errors.New("the account has the old UID")
				}
				return err
			})
		}},
		{Group: accountsGroup, Name: "another account is not made anew", Run: func(w *World) {
			w.createAccount("mine")
			w.deleteAccount("mine")
			w.deleteAccount("default")
			w.eventually(func() error { _, err := w.readAccount("default"); return err }) // by then the other one would be there
			_, err := w.readAccount("mine")
			w.wantRefusal(err, answer{404, metav1.StatusReasonNotFound, `serviceaccounts "mine" not found`})
		}},
	}
}

// rootCAControllers keep kube-root-ca.crt, and empty what goes.
func rootCAControllers() []Case {
	return []Case{
		{Group: accountsGroup, Name: "kube-root-ca.crt is made anew when it is deleted", Run: func(w *World) {
			w.deleteConfigMap(rootCA)
			w.eventually(w.checkRootCA)
		}},
		{Group: accountsGroup, Name: "kube-root-ca.crt is put right when it is changed", Run: func(w *World) {
			cm, err := w.configMap(rootCA)
			w.must(err)
			changed := w.changeConfigMap(cm, "other")
			w.wantEqual("data", changed.Data, map[string]string{"a": "other"})
			w.eventually(w.checkRootCA)
		}},
		{Group: accountsGroup, Name: "a deleted namespace takes its accounts along", Run: func(w *World) {
			w.createAccount("mine")
			w.must(w.Client.CoreV1().Namespaces().Delete(w.Ctx, w.NS, metav1.DeleteOptions{}))
			w.eventually(func() error {
				list, err := w.Client.CoreV1().ServiceAccounts(w.NS).List(w.Ctx, metav1.ListOptions{})
				if err == nil && len(list.Items) > 0 {
					err = errors.New("accounts are left")
				}
				return err
			})
			w.eventually(func() error {
				_, err := w.Client.CoreV1().Namespaces().Get(w.Ctx, w.NS, metav1.GetOptions{})
				if !apierrors.IsNotFound(err) {
					return errors.New("the namespace is left")
				}
				return nil
			})
		}},
	}
}

// checkRootCA: its data and its annotation are all that is in it.
func (w *World) checkRootCA() error {
	cm, err := w.configMap(rootCA)
	if err != nil {
		return err
	}
	if len(cm.Data) != 1 || cm.Data["ca.crt"] != string(w.Admin.CAData) {
		return errors.New("it does not hold the server's CA alone")
	}
	if note := cm.Annotations["kubernetes.io/description"]; len(cm.Annotations) != 1 || note != "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. "+
		"No other usage is guaranteed across distributions of Kubernetes clusters." {
		return errors.New("it has another description: " + note)
	}
	return nil
}
