package cases

import (
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// bind makes tr one that is bound to an object of v1.
func bind(tr *authenticationv1.TokenRequest, kind, name string, uid types.UID) *authenticationv1.TokenRequest {
	tr.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name, UID: uid}
	return tr
}

func (w *World) account(name string) *corev1.ServiceAccount {
	account, err := w.Client.CoreV1().ServiceAccounts(w.NS).Get(w.Ctx, name, metav1.GetOptions{})
	w.must(err)
	return account
}

// finalizer keeps what was deleted.
const finalizer = "cases.example/keep"

func (w *World) createSecret(name string, finalizers ...string) *corev1.Secret {
	secret, err := w.Client.CoreV1().Secrets(w.NS).Create(w.Ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers}}, metav1.CreateOptions{})
	w.must(err)
	return secret
}

// terminateAccount makes an account and deletes it; a finalizer keeps it.
func (w *World) terminateAccount(name string) {
	accounts := w.Client.CoreV1().ServiceAccounts(w.NS)
	_, err := accounts.Create(w.Ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{finalizer}}}, metav1.CreateOptions{})
	w.must(err)
	w.must(accounts.Delete(w.Ctx, name, metav1.DeleteOptions{}))
	if w.account(name).DeletionTimestamp == nil {
		w.Fatalf("the account does not terminate")
	}
}

// deletePod deletes with a grace in seconds.
func (w *World) deletePod(name string, grace int64) {
	w.must(w.Client.CoreV1().Pods(w.NS).Delete(w.Ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &grace}))
}

const recreated = "the UID in the bound object reference (u) does not match the UID in record. The object might have been deleted and then recreated"

// refusedBindings are refused for the object that they name.
func refusedBindings() []Case {
	to := func(version, kind, name string, want answer) func(*World, *authenticationv1.TokenRequest) answer {
		return func(_ *World, tr *authenticationv1.TokenRequest) answer {
			bind(tr, kind, name, "").Spec.BoundObjectRef.APIVersion = version
			return want
		}
	}
	return append(refusals([]refusal{
		{"a pod that does not exist: 404", "", to("v1", "Pod", "missing", notFound("pods", "missing"))},
		{"a node that does not exist: 404", "", to("v1", "Node", "missing", notFound("nodes", "missing"))},
		{"a Secret that does not exist: 404", "", to("v1", "Secret", "missing", notFound("secrets", "missing"))},
		{"a pod of another account: 400, before its UID", "", func(w *World, tr *authenticationv1.TokenRequest) answer {
			pod := w.newPod("web", "")
			pod.Spec.ServiceAccountName = w.createAccount("other").Name
			bind(tr, "Pod", w.createPod(pod).Name, "u")
			return badRequest(`cannot bind token for serviceaccount "default" to pod running with different serviceaccount name.`)
		}},
		{"a UID that is not the pod's: 409", "", func(w *World, tr *authenticationv1.TokenRequest) answer {
			bind(tr, "Pod", w.createPod(w.newPod("web", "")).Name, "u")
			return conflict(`Pod "web"`, recreated)
		}},
		{"a UID that is not the node's: 409", "", func(w *World, tr *authenticationv1.TokenRequest) answer {
			node := w.createNode("a")
			bind(tr, "Node", node.Name, "u")
			return conflict(`Node "`+node.Name+`"`, recreated)
		}},
		{"a UID that is not the Secret's: 409", "", func(w *World, tr *authenticationv1.TokenRequest) answer {
			bind(tr, "Secret", w.createSecret("bound").Name, "u")
			return conflict(`Secret "bound"`, recreated)
		}},
		{"a Deployment: 400", "", to("apps/v1", "Deployment", "web", badRequest("cannot bind token to object of type apps/v1, Kind=Deployment"))},
		{"a Pod of another group: 400", "", to("x/v1", "Pod", "web", badRequest("cannot bind token to object of type x/v1, Kind=Pod"))},
		{"a ServiceAccount: 400", "", to("v1", "ServiceAccount", "default", badRequest("cannot bind token to object of type /v1, Kind=ServiceAccount"))},
		{"a reference to nothing: 400", "", to("", "", "", badRequest("cannot bind token to object of type /, Kind="))},
	}), webhookBinding)
}

// webhookBinding is of an alpha feature.
var webhookBinding = Case{
	Group: tokenRequestGroup, Name: "a webhook configuration: 400, that is switched off", Differs: "the fake knows no webhook configurations",
	Run: func(w *World) {
		tr := tokenRequest("hook")
		tr.Spec.Attestations = map[string]authenticationv1.AttestationValue{"admissionReviewAPIGroups": {"admission.k8s.io"}}
		bind(tr, "ValidatingWebhookConfiguration", "a", "").Spec.BoundObjectRef.APIVersion = "admissionregistration.k8s.io/v1"
		_, err := w.requestToken("default", tr)
		w.wantRefusal(err, badRequest("cannot bind token to object of type admissionregistration.k8s.io/v1, Kind=ValidatingWebhookConfiguration (feature gate APIServerWebhookAuthenticationToken is disabled)"))
	},
}

// acceptedBindings are granted, and in the claims.
func acceptedBindings() []Case {
	var out []Case
	add := func(name string, run func(*World)) {
		out = append(out, Case{Group: tokenRequestGroup, Name: name, Run: run})
	}
	add("bound to a pod without its UID: granted", func(w *World) {
		pod := w.createPod(w.newPod("web", ""))
		w.wantBound(bind(tokenRequest(), "Pod", "web", ""), "pod", pod)
	})
	add("bound to a pod with its UID: granted", func(w *World) {
		pod := w.createPod(w.newPod("web", ""))
		w.wantBound(bind(tokenRequest(), "Pod", "web", pod.UID), "pod", pod)
	})
	add("bound to a pod of any version: granted", func(w *World) {
		tr := bind(tokenRequest(), "Pod", "web", "")
		tr.Spec.BoundObjectRef.APIVersion = "v9"
		w.wantBound(tr, "pod", w.createPod(w.newPod("web", "")))
	})
	add("bound to a Secret: granted", func(w *World) {
		secret := w.createSecret("bound")
		w.wantBound(bind(tokenRequest(), "Secret", "bound", secret.UID), "secret", secret)
	})
	add("bound to a node: granted", func(w *World) {
		node := w.createNode("a")
		w.wantBound(bind(tokenRequest(), "Node", node.Name, node.UID), "node", node)
	})
	add("bound to a pod that has ended: granted", func(w *World) {
		pod := w.createPod(w.newPod("web", ""))
		w.endPod(pod)
		w.wantBound(bind(tokenRequest(), "Pod", "web", pod.UID), "pod", pod)
	})
	add("bound to a terminating pod: granted", func(w *World) {
		pod := w.createPod(w.newPod("web", w.createNode("a").Name))
		w.deletePod("web", 100)
		w.wantBound(bind(tokenRequest(), "Pod", "web", pod.UID), "pod", pod, "node")
	})
	return out
}

// endPod lets the pod succeed.
func (w *World) endPod(pod *corev1.Pod) {
	pod = pod.DeepCopy()
	pod.Status.Phase = corev1.PodSucceeded
	_, err := w.Client.CoreV1().Pods(w.NS).UpdateStatus(w.Ctx, pod, metav1.UpdateOptions{})
	w.must(err)
}

// wantBound wants the object, and of those others no more than named, in the token's claims.
func (w *World) wantBound(tr *authenticationv1.TokenRequest, claim string, to metav1.Object, others ...string) {
	private := w.claimsOf(w.token("default", tr)).private()
	w.wantEqual(claim, private[claim], any(map[string]any{"name": to.GetName(), "uid": string(to.GetUID())}))
	for _, name := range []string{"pod", "secret", "node"} {
		if _, has := private[name]; has && name != claim && !slices.Contains(others, name) {
			w.Errorf("there is a claim %q, too", name)
		}
	}
}
