package conformance

import (
	"context"
	"errors"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// directAgent marks the requests that this test sends with the daemon's token.
const directAgent = "conformance-direct"

// grants are what each attempt of the tests of rights acts on.
type grants struct {
	namespace   string
	node, other string      // nodes
	own         *corev1.Pod // the daemon's, on node
	here        *corev1.Pod // on node, with a volume for audience vault and a secret
	elsewhere   *corev1.Pod // on other, otherwise the same

	toSecret, toNode *authenticationv1.BoundObjectReference // to a Secret of the pod here, and to node, with their UIDs
}

const secretName = "of-a-pod"

// newGrants makes a namespace, and two nodes whose names begin with its name.
func newGrants(t *testing.T, namespace string) *grants {
	t.Helper()
	g := &grants{namespace: namespace, node: namespace + "-a", other: namespace + "-b"}
	createNode(t, g.node)
	createNode(t, g.other)
	createNamespace(t, namespace)
	createSecret(t, namespace, "of-no-pod")
	g.toSecret = boundTo("Secret", secretName, createSecret(t, namespace, secretName).UID)
	node := must[*corev1.Node](t)(client.CoreV1().Nodes().Get(t.Context(), g.node, metav1.GetOptions{}))
	g.toNode = boundTo("Node", g.node, node.UID)
	withSecret := corev1.Volume{Name: "secret", VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: secretName},
	}}
	g.own = daemonSetPod(t, g.node)
	g.here = createPod(t, newPod(namespace, "here", "default", g.node, vault(600), withSecret))
	g.elsewhere = createPod(t, newPod(namespace, "elsewhere", appAccount, g.other, vault(600)))
	return g
}

func createSecret(t *testing.T, namespace, name string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}
	return must[*corev1.Secret](t)(client.CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{}))
}

// attempt is one request; its error is the verdict.
type attempt struct {
	name string
	do   func(context.Context, kubernetes.Interface) error
}

// direct returns a client with the daemon's token that impersonates.
func direct(t *testing.T, token string, who rest.ImpersonationConfig) *kubernetes.Clientset {
	t.Helper()
	config := plane.Bearer(token)
	config.UserAgent = directAgent
	config.Impersonate = who
	return clientFor(t, config)
}

func nodeIdentity(name string) rest.ImpersonationConfig {
	return rest.ImpersonationConfig{UserName: "system:node:" + name}
}

// The RBAC of deploy/ is enough for all that the daemon does, and for nothing that it must not.
func TestDeployRBAC(t *testing.T) {
	g := newGrants(t, "rbac")
	token := boundToken(t, g.own)
	asNode := direct(t, token, nodeIdentity(g.node))
	for _, a := range g.allowed() {
		eventually(t, func() error { return a.do(t.Context(), asNode) }) // the Node authorizer's graph may lag
	}
	for _, a := range g.refused() {
		t.Run(a.name, func(t *testing.T) {
			// Asked by the administrator the same request is none that is refused to anybody.
			if err := a.do(t.Context(), client); err != nil {
				t.Errorf("asked by the administrator: %v", err)
			}
			if err := a.do(t.Context(), asNode); !apierrors.IsForbidden(err) {
				t.Errorf("asked by the daemon: %v, want Forbidden", err)
			}
		})
	}
	// Which nobody may have.
	if err := g.createBound(boundTo("Pod", g.here.Name, "another"), vaultAud)(t.Context(), asNode); !apierrors.IsForbidden(err) {
		t.Errorf("a token bound to a pod with another UID: %v, want Forbidden", err)
	}
	t.Run("identities", func(t *testing.T) { g.testIdentities(t, token) })
	t.Run("tokens", g.testTokens)
}

// testIdentities lists the node's pods, which is allowed, as those whom the daemon may not be.
func (g *grants) testIdentities(t *testing.T, token string) {
	list := listPods("spec.nodeName=" + g.node)
	itself := "system:node:" + g.node
	for name, who := range map[string]rest.ImpersonationConfig{
		"itself":                          {},
		"another node":                    nodeIdentity(g.other),
		"its node, in the group of nodes": {UserName: itself, Groups: []string{"system:nodes"}},
		"its node, and an administrator":  {UserName: itself, Groups: []string{"system:masters"}},
		"its node, with a UID":            {UserName: itself, UID: "1"},
		"its node, with an extra":         {UserName: itself, Extra: map[string][]string{nodeNameExtra: {g.other}}},
		"a user":                          {UserName: "conformance-admin"},
		"an administrator":                {UserName: "conformance-admin", Groups: []string{"system:masters"}},
		"a controller":                    {UserName: "system:kube-controller-manager"},
		"nobody":                          {UserName: "system:anonymous"},
		"a service account":               {UserName: "system:serviceaccount:kube-system:default"},
		"the account of a pod here":       {UserName: "system:serviceaccount:" + g.namespace + ":default"},
		"its own account":                 {UserName: daemonUser},
	} {
		// The account itself must be refused: a refusal of whom it has become would come too late.
		wantForbidden(t, "as "+name, daemonUser, list(t.Context(), direct(t, token, who)))
	}
}

// testTokens lists the node's pods, which is allowed, with tokens of the same account, and of another, that are not this pod's.
func (g *grants) testTokens(t *testing.T) {
	list := listPods("spec.nodeName=" + g.node)
	for name, to := range map[string]*authenticationv1.BoundObjectReference{
		"nothing":               nil,
		"a Secret":              boundTo("Secret", createSecret(t, deployNamespace, g.node).Name, ""),
		"a pod of another node": tokenRequest(daemonSetPod(t, g.other)).Spec.BoundObjectRef,
	} {
		token := accountToken(t, g.own, to)
		wantForbidden(t, "with a token of the daemon's account bound to "+name, daemonUser,
			list(t.Context(), direct(t, token, nodeIdentity(g.node))))
	}
	// Whoever takes over a pod beside the daemon.
	wantForbidden(t, "with the token of another pod of the node", "system:serviceaccount:"+g.namespace+":default",
		list(t.Context(), direct(t, boundToken(t, g.here), nodeIdentity(g.node))))
}

func listPods(selector string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: selector})
		return err
	}
}

// createToken requests a token as the kubelet does for the pod.
func createToken(pod *corev1.Pod, audiences ...string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().ServiceAccounts(pod.Namespace).
			CreateToken(ctx, pod.Spec.ServiceAccountName, tokenRequest(pod, audiences...), metav1.CreateOptions{})
		return err
	}
}

// createBound requests a token of the account of the pod here, bound to anything.
func (g *grants) createBound(to *authenticationv1.BoundObjectReference, audiences ...string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, BoundObjectRef: to}}
		_, err := c.CoreV1().ServiceAccounts(g.namespace).CreateToken(ctx, g.here.Spec.ServiceAccountName, request, metav1.CreateOptions{})
		return err
	}
}

func (g *grants) refused() []attempt {
	return append([]attempt{
		{"list all pods", listPods("")},
		{"list another node's pods", listPods("spec.nodeName=" + g.other)},
		{"list all pods but those of a node", listPods("spec.nodeName!=" + g.other)},
		{"list pods of no node", listPods("spec.nodeName=")},
		{"list the pods of a namespace", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().Pods(g.namespace).List(ctx, metav1.ListOptions{}))
		}},
		{"watch all pods", func(ctx context.Context, c kubernetes.Interface) error {
			return watched(c.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{}))
		}},
		{"get another node's pod", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().Pods(g.namespace).Get(ctx, g.elsewhere.Name, metav1.GetOptions{}))
		}},
		{"token for another node's pod", createToken(g.elsewhere, vaultAud)},
		{"token bound to nothing", g.createBound(nil, vaultAud)},
		{"token bound to a Secret", g.createBound(g.toSecret, vaultAud)},
		{"token bound to the node", g.createBound(g.toNode, vaultAud)},
		{"token bound to a pod without its UID", g.createBound(boundTo("Pod", g.here.Name, ""), vaultAud)},
		{"token for an audience of no volume", g.createBound(boundTo("Pod", g.here.Name, g.here.UID), "elsewhere")},
		{"token for two audiences", g.createBound(boundTo("Pod", g.here.Name, g.here.UID), vaultAud, "elsewhere")},
	}, g.refusedObjects()...)
}

func (g *grants) refusedObjects() []attempt {
	return []attempt{
		{"get the pod, of which lists and watches tell", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().Pods(g.namespace).Get(ctx, g.here.Name, metav1.GetOptions{}))
		}},
		{"get its configmap", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().ConfigMaps(g.namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{}))
		}},
		{"get its secret", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().Secrets(g.namespace).Get(ctx, secretName, metav1.GetOptions{}))
		}},
		{"list secrets", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets(g.namespace).List(ctx, metav1.ListOptions{})
			return err
		}},
		{"get a secret of no pod", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets(g.namespace).Get(ctx, "of-no-pod", metav1.GetOptions{})
			return err
		}},
		{"get the service account of another node's pod", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ServiceAccounts(g.namespace).Get(ctx, appAccount, metav1.GetOptions{})
			return err
		}},
		{"read another node", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Nodes().Get(ctx, g.other, metav1.GetOptions{})
			return err
		}},
		{"list all nodes", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
			return err
		}},
		{"delete a pod, which the node itself could", func(ctx context.Context, c kubernetes.Interface) error {
			options := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
			return c.CoreV1().Pods(g.here.Namespace).Delete(ctx, g.here.Name, options)
		}},
	}
}

func (g *grants) allowed() []attempt {
	named := func(name string) metav1.ListOptions {
		return metav1.ListOptions{FieldSelector: "metadata.name=" + name}
	}
	return append([]attempt{
		{"list pods", listPods("spec.nodeName=" + g.node)},
		{"token", createToken(g.here, vaultAud)},
		{"token for the API server", createToken(g.here)},
		{"watch pods", func(ctx context.Context, c kubernetes.Interface) error {
			return watched(c.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + g.node}))
		}},
		{"get service account", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().ServiceAccounts(g.namespace).Get(ctx, "default", metav1.GetOptions{}))
		}},
	}, g.allowedObjects(named)...)
}

func (g *grants) allowedObjects(named func(string) metav1.ListOptions) []attempt {
	return []attempt{
		{"configmap", func(ctx context.Context, c kubernetes.Interface) error {
			maps := c.CoreV1().ConfigMaps(g.namespace)
			return errors.Join(second(maps.List(ctx, named("kube-root-ca.crt"))), watched(maps.Watch(ctx, named("kube-root-ca.crt"))))
		}},
		{"secret", func(ctx context.Context, c kubernetes.Interface) error {
			secrets := c.CoreV1().Secrets(g.namespace)
			return errors.Join(second(secrets.List(ctx, named(secretName))), watched(secrets.Watch(ctx, named(secretName))))
		}},
		{"the node itself", func(ctx context.Context, c kubernetes.Interface) error {
			nodes := c.CoreV1().Nodes()
			return errors.Join(second(nodes.List(ctx, named(g.node))), watched(nodes.Watch(ctx, named(g.node))))
		}},
		{"clustertrustbundles", func(ctx context.Context, c kubernetes.Interface) error {
			bundles := c.CertificatesV1().ClusterTrustBundles()
			return errors.Join(second(bundles.List(ctx, metav1.ListOptions{})), watched(bundles.Watch(ctx, metav1.ListOptions{})))
		}},
		{"events", func(ctx context.Context, c kubernetes.Interface) error { return g.recordEvent(ctx, c) }},
	}
}

func (g *grants) recordEvent(ctx context.Context, c kubernetes.Interface) error {
	event, err := c.CoreV1().Events(g.namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "conformance-"},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: g.namespace, Name: g.here.Name, UID: g.here.UID},
		Reason:         "Conformance", Type: corev1.EventTypeNormal,
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = c.CoreV1().Events(g.namespace).Patch(ctx, event.Name, types.MergePatchType, []byte(`{"count":2}`), metav1.PatchOptions{})
	return err
}

func second[T any](_ T, err error) error { return err }

func watched(w watch.Interface, err error) error {
	if err == nil {
		w.Stop()
	}
	return err
}
