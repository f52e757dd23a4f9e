package cases

import (
	"errors"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Why cases run on the real server alone.
const (
	needsRBAC    = "needs RBAC"
	needsDrivers = "needs CSIDrivers"
)

// rights are what depends on rights that somebody was given, or was not.
var rights = []attempt{
	{name: "a pod's account without rights acts as the pod's node: 403", realOnly: needsRBAC, request: ownPods, want: notBe(app, "associated-node"),
		as: func(n *nodeWorld) *rest.Config { return acting(n.tokenOf(refTo(n.here)), n.asNode()) }},
	{name: "a pod's account acts as the pod's node for what it has no right to: 403", realOnly: needsRBAC, as: projector(itself),
		request: "DELETE" + nsPath + "pods/here",
		want:    forbidden(`pods "here"`, app+`impersonate-on:associated-node:delete resource "pods"`+inNS)},
	{name: "a pod's account with the right to act for the node, but not as it: 403", realOnly: needsRBAC, request: ownPods, as: actingFor,
		want: forbidden(`nodes.authentication.k8s.io "*"`,
			app+`impersonate:associated-node resource "nodes" in API group "authentication.k8s.io" at the cluster scope`)},
	{name: "a pod's account lists the pods of its namespace: 403", realOnly: needsRBAC, request: "GET" + nsPath + "pods", as: podToken,
		want: forbidden("pods", app+`list resource "pods"`+inNS)},
	{name: "a pod's account with a Role lists the pods of its namespace", realOnly: needsRBAC, request: "GET" + nsPath + "pods", as: roleToken},
	{name: "a pod's account with a Role lists the pods of another namespace: 403", realOnly: needsRBAC, request: "GET /api/v1/namespaces/default/pods", as: roleToken,
		want: forbidden("pods", app+`list resource "pods" in API group "" in the namespace "default"`)},
	{name: "a certificate of a node's name without its group is no node's: 403", realOnly: needsRBAC, request: ownPods,
		want: forbidden("pods", user+`list resource "pods"`+atAll), as: func(n *nodeWorld) *rest.Config {
			config, err := n.User("system:node:" + n.node.Name)
			n.must(err)
			return config
		}},
}

// actingFor has half of the rights. It is known to the server when the refusal is no longer that of all of them.
func actingFor(n *nodeWorld) *rest.Config {
	n.grant(n.subject("app"), asNodeTo("pods", "list"))
	config := acting(n.tokenOf(refTo(n.here)), n.asNode())
	n.eventually(func() error {
		err := n.sendAs(config, n.fill(ownPods), "")
		if api := apierrors.APIStatus(nil); errors.As(err, &api) && api.Status().Details.Kind == "nodes" {
			return nil
		}
		return err
	})
	return config
}

func podToken(n *nodeWorld) *rest.Config { return n.tokenOf(refTo(n.here)) }

// roleToken is podToken, when a Role has come into effect.
func roleToken(n *nodeWorld) *rest.Config {
	meta := metav1.ObjectMeta{Namespace: n.NS, Name: "reader"}
	_, err := n.Client.RbacV1().Roles(n.NS).Create(n.Ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
	}}, metav1.CreateOptions{})
	n.must(err)
	_, err = n.Client.RbacV1().RoleBindings(n.NS).Create(n.Ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta, Subjects: []rbacv1.Subject{n.subject("app")},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
	}, metav1.CreateOptions{})
	n.must(err)
	config := podToken(n)
	n.eventually(func() error { return n.sendAs(config, n.fill("GET"+nsPath+"pods"), "") })
	return config
}

func realOnlyAccess() []Case {
	return []Case{
		{Group: accessGroup, Name: "a node with the right request-serviceaccounts-token-audience requests a token for an audience of no source",
			RealOnly: needsRBAC, Run: grantedAudience},
		{Group: accessGroup, Name: "a node requests a token for an audience of a CSIDriver that the pod mounts", RealOnly: needsDrivers, Run: driverAudience},
		{Group: accessGroup, Name: "an account asks whether it may: can-i", RealOnly: needsRBAC, Run: canI},
		{Group: accessGroup, Name: "a pod names a Secret that its account, with enforce-mountable-secrets, does not: 403",
			RealOnly: "needs what is deprecated since Kubernetes 1.32", Run: mountableSecrets},
	}
}

// asksBank requests a token for the audience bank as the node.
func (n *nodeWorld) asksBank(pod *corev1.Pod) error {
	client, err := kubernetes.NewForConfig(n.config)
	n.must(err)
	tr := tokenRequest("bank")
	tr.Spec.BoundObjectRef = refTo(pod)
	_, err = client.CoreV1().ServiceAccounts(n.NS).CreateToken(n.Ctx, "app", tr, metav1.CreateOptions{})
	return err
}

func grantedAudience(w *World) {
	n := newNodeWorld(w)
	want := refused(n.fill(notAuthorized("bank")))
	n.wantRefusal(n.asksBank(n.here), want)
	n.grant(rbacv1.Subject{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "system:node:" + n.node.Name}, rbacv1.PolicyRule{
		APIGroups: []string{""}, Resources: []string{"bank"}, ResourceNames: []string{"app"}, Verbs: []string{"request-serviceaccounts-token-audience"},
	})
	n.eventually(func() error { return n.asksBank(n.here) })
}

func driverAudience(w *World) {
	n := newNodeWorld(w)
	_, err := n.Client.StorageV1().CSIDrivers().Create(n.Ctx, &storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: n.NS},
		Spec: storagev1.CSIDriverSpec{
			TokenRequests:        []storagev1.TokenRequest{{Audience: "bank"}},
			VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral},
		},
	}, metav1.CreateOptions{})
	n.must(err)
	pod := n.podOf("csi", "app", n.node)
	pod.Spec.Volumes = []corev1.Volume{{Name: "csi", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: n.NS}}}}
	pod = n.createPod(pod)
	n.eventually(func() error { return n.asksBank(pod) })
}

func canI(w *World) {
	n := newNodeWorld(w)
	client, err := kubernetes.NewForConfig(roleToken(n))
	n.must(err)
	for verb, want := range map[string]bool{"list": true, "delete": false} {
		got, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(n.Ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: n.NS, Verb: verb, Resource: "pods"},
			},
		}, metav1.CreateOptions{})
		n.must(err)
		n.wantEqual("may "+verb, got.Status.Allowed, want)
	}
}

func mountableSecrets(w *World) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Name: "strict", Annotations: map[string]string{"kubernetes.io/enforce-mountable-secrets": "true"},
	}, Secrets: []corev1.ObjectReference{{Name: "known"}}}
	_, err := w.Client.CoreV1().ServiceAccounts(w.NS).Create(w.Ctx, account, metav1.CreateOptions{})
	w.must(err)
	create := func(secret string) error {
		pod := w.newPod("names-"+secret, "")
		pod.Spec.ServiceAccountName = "strict"
		pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}}
		_, err := w.Client.CoreV1().Pods(w.NS).Create(w.Ctx, pod, metav1.CreateOptions{})
		return err
	}
	w.must(create("known"))
	w.wantRefusal(create("unknown"), forbidden(`pods "names-unknown"`,
		`volume with secret.secretName="unknown" is not allowed because service account strict does not reference that secret`))
}
