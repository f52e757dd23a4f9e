package cases

import (
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// tokenAttempt is a TokenRequest of a node: for the account "app" with the audience "vault" and bound to pod here, unless
// edit says otherwise.
type tokenAttempt struct {
	name    string
	account string
	edit    func(*nodeWorld, *authenticationv1.TokenRequestSpec)
	want    answer
}

func tokenAttempts() []Case {
	var out []Case
	for _, a := range append(boundAttempts, audiences...) {
		out = append(out, Case{Group: accessGroup, Name: a.name, Run: func(w *World) { newNodeWorld(w).request(a) }})
	}
	return out
}

func (n *nodeWorld) request(a tokenAttempt) {
	tr := tokenRequest("vault")
	tr.Spec.BoundObjectRef = refTo(n.here)
	if a.edit != nil {
		a.edit(n, &tr.Spec)
	}
	account := a.account
	if account == "" {
		account = "app"
	}
	client, err := kubernetes.NewForConfig(n.config)
	n.must(err)
	got, err := client.CoreV1().ServiceAccounts(n.NS).CreateToken(n.Ctx, account, tr, metav1.CreateOptions{})
	if a.want == (answer{}) {
		n.must(err)
		n.wantEqual("token is there", got.Status.Token != "", true)
		return
	}
	a.want.Message = n.fill(a.want.Message)
	n.wantRefusal(err, a.want)
}

func refTo(pod *corev1.Pod) *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
}

// refused is the 403 of NodeRestriction.
func refused(why string) answer { return forbidden(`serviceaccounts "app"`, why) }

const notBound = "node requested token not bound to a pod"

func bound(edit func(*authenticationv1.BoundObjectReference)) func(*nodeWorld, *authenticationv1.TokenRequestSpec) {
	return func(_ *nodeWorld, spec *authenticationv1.TokenRequestSpec) { edit(spec.BoundObjectRef) }
}

var boundAttempts = []tokenAttempt{
	{name: "a node requests a token bound to a pod of its own"},
	{name: "a node requests a token bound to nothing: 403", want: refused(notBound), edit: func(_ *nodeWorld, spec *authenticationv1.TokenRequestSpec) {
		spec.BoundObjectRef = nil
	}},
	{name: "a node requests a token bound to itself: 403", want: refused(notBound), edit: func(n *nodeWorld, spec *authenticationv1.TokenRequestSpec) {
		spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: n.node.Name, UID: n.node.UID}
	}},
	{name: "a node requests a token bound to a Secret: 403", want: refused(notBound),
		edit: bound(func(ref *authenticationv1.BoundObjectReference) { ref.Kind, ref.Name = "Secret", "projected" })},
	{name: "a node requests a token bound to a pod of no version: 403", want: refused(notBound),
		edit: bound(func(ref *authenticationv1.BoundObjectReference) { ref.APIVersion = "" })},
	{name: "a node requests a token bound to a pod of version v2: 403", want: refused(notBound),
		edit: bound(func(ref *authenticationv1.BoundObjectReference) { ref.APIVersion = "v2" })},
	{name: "a node requests a token bound to a pod without a name: 403", want: refused(notBound),
		edit: bound(func(ref *authenticationv1.BoundObjectReference) { ref.Name = "" })},
	{name: "a node requests a token bound to a pod without its UID: 403", want: refused("node requested token with a pod binding without a uid"),
		edit: bound(func(ref *authenticationv1.BoundObjectReference) { ref.UID = "" })},
	{name: "a node requests a token bound to another UID: 403, not 409", edit: bound(func(ref *authenticationv1.BoundObjectReference) { ref.UID = "another" }),
		want: refused("the UID in the bound object reference (another) does not match the UID in record. The object might have been deleted and then recreated")},
	{name: "a node requests a token bound to a pod that does not exist: 404", want: notFound("pod", "missing"),
		edit: bound(func(ref *authenticationv1.BoundObjectReference) { ref.Name = "missing" })},
	{name: "a node requests a token bound to another node's pod of the same account: 403",
		want: refused("node requested token bound to a pod scheduled on a different node"),
		edit: func(n *nodeWorld, spec *authenticationv1.TokenRequestSpec) { spec.BoundObjectRef = refTo(n.twin) }},
	{name: "a node requests a token of another node's account: 403", account: "elsewhere",
		edit: func(n *nodeWorld, spec *authenticationv1.TokenRequestSpec) { spec.BoundObjectRef = refTo(n.there) },
		want: forbidden(`serviceaccounts "elsewhere"`, user+`create resource "serviceaccounts/token"`+inNS+noEdge)},
	{name: "a node requests a token of an account that does not exist: 403, not 404", account: "missing",
		want: forbidden(`serviceaccounts "missing"`, user+`create resource "serviceaccounts/token"`+inNS+noEdge)},
	{name: "a node requests a token of one account bound to a pod of another: 400", account: "over", want: answer{400, "BadRequest",
		`cannot bind token for serviceaccount "over" to pod running with different serviceaccount name.`}},
	{name: "a node requests a token bound to a pod that is over", account: "over",
		edit: func(n *nodeWorld, spec *authenticationv1.TokenRequestSpec) { spec.BoundObjectRef = refTo(n.over) }},
}

// asking is an edit of the audiences, for a pod that asks for vault, and for the API as well.
func asking(audiences ...string) func(*nodeWorld, *authenticationv1.TokenRequestSpec) {
	return func(_ *nodeWorld, spec *authenticationv1.TokenRequestSpec) { spec.Audiences = audiences }
}

// askingOver is asking for a pod that asks for vault alone.
func askingOver(audiences ...string) func(*nodeWorld, *authenticationv1.TokenRequestSpec) {
	return func(n *nodeWorld, spec *authenticationv1.TokenRequestSpec) {
		spec.Audiences, spec.BoundObjectRef = audiences, refTo(n.over)
	}
}

func notAuthorized(audience string) string {
	return `system:node:{node} is not authorized to request tokens for audience "` + audience + `"`
}

var audiences = []tokenAttempt{
	{name: "a node requests a token for no audience, and the pod has a source without one", edit: asking()},
	{name: "a node requests a token for an empty audience, and the pod has a source without one", edit: asking("")},
	{name: "a node requests a token for an audience that the pod has no source of: 403", edit: asking("bank"), want: refused(notAuthorized("bank"))},
	{name: "a node requests a token for the API's audience by its name, and the pod has a source without one: 403",
		edit: asking(ClusterIssuer), want: refused(notAuthorized(ClusterIssuer))},
	{name: "a node requests a token for two audiences that the pod has sources of: 403", edit: asking("vault", ""),
		want: refused("node may only request 0 or 1 audiences")},
	{name: "a node requests a token for one audience twice: 403", edit: asking("vault", "vault"), want: refused("node may only request 0 or 1 audiences")},
	{name: "a node requests a token for no audience, and the pod has no source without one: 403", account: "over", edit: askingOver(),
		want: forbidden(`serviceaccounts "over"`, notAuthorized(""))},
	{name: "a node requests a token for an empty audience, and the pod has no source without one: 403", account: "over", edit: askingOver(""),
		want: forbidden(`serviceaccounts "over"`, notAuthorized(""))},
}

// ending is what the end of a pod means to its node.
func ending() []Case {
	return []Case{
		{Group: accessGroup, Name: "a node requests a token bound to a pod that is terminating", Run: func(w *World) {
			n := newNodeWorld(w)
			n.must(n.Client.CoreV1().Pods(n.NS).Delete(n.Ctx, "here", metav1.DeleteOptions{}))
			pod, err := n.Client.CoreV1().Pods(n.NS).Get(n.Ctx, "here", metav1.GetOptions{})
			n.must(err)
			n.wantEqual("terminating", pod.DeletionTimestamp != nil, true)
			n.request(tokenAttempt{})
		}},
		{Group: accessGroup, Name: "a node requests a token when its last pod of the account is gone: 403", Run: func(w *World) {
			n := newNodeWorld(w)
			n.request(tokenAttempt{})
			now := int64(0)
			n.must(n.Client.CoreV1().Pods(n.NS).Delete(n.Ctx, "here", metav1.DeleteOptions{GracePeriodSeconds: &now}))
			n.eventually(func() error {
				if err := n.sendAs(n.config, n.fill("GET"+nsPath+"serviceaccounts/app"), ""); !apierrors.IsForbidden(err) {
					return fmt.Errorf("the account is still there to be read: %v", err)
				}
				return nil
			})
			n.request(tokenAttempt{want: forbidden(`serviceaccounts "app"`, user+`create resource "serviceaccounts/token"`+inNS+noEdge)})
		}},
	}
}
