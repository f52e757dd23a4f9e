package conformance

import (
	"context"
	"errors"
	"testing"

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

// grants are what each case of the RBAC test acts on.
type grants struct {
	own       *corev1.Pod // the daemon's, on node rbac-a
	here      *corev1.Pod // on node rbac-a, with a volume for audience vault and a secret
	elsewhere *corev1.Pod // on node rbac-b, otherwise the same
}

const (
	hereNode, thereNode = "rbac-a", "rbac-b"
	secretName          = "of-a-pod"
)

func newGrants(t *testing.T) *grants {
	t.Helper()
	createNode(t, hereNode)
	createNode(t, thereNode)
	createNamespace(t, hereNode)
	for _, name := range []string{secretName, "of-no-pod"} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := client.CoreV1().Secrets(hereNode).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	withSecret := corev1.Volume{Name: "secret", VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: secretName},
	}}
	return &grants{
		own:       daemonSetPod(t, hereNode),
		here:      createPod(t, newPod(hereNode, "here", "default", hereNode, vault(600), withSecret)),
		elsewhere: createPod(t, newPod(hereNode, "elsewhere", appAccount, thereNode, vault(600))),
	}
}

// attempt is one request; its error is the verdict.
type attempt struct {
	name string
	do   func(context.Context, kubernetes.Interface) error
}

// as returns a client with the daemon's token that impersonates.
func (g *grants) as(t *testing.T, token string, who rest.ImpersonationConfig) *kubernetes.Clientset {
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
	g := newGrants(t)
	token := boundToken(t, g.own)
	asNode := g.as(t, token, nodeIdentity(hereNode))
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
	t.Run("identities", func(t *testing.T) { g.testIdentities(t, token) })
}

// testIdentities lists the node's pods, which is allowed, as those whom the daemon may not be.
func (g *grants) testIdentities(t *testing.T, token string) {
	list := listPods("spec.nodeName=" + hereNode)
	for name, who := range map[string]rest.ImpersonationConfig{
		"itself":            {},
		"another node":      nodeIdentity(thereNode),
		"a node with group": {UserName: "system:node:" + hereNode, Groups: []string{"system:masters"}},
		"a user":            {UserName: "conformance-admin"},
		"a service account": {UserName: "system:serviceaccount:kube-system:default"},
	} {
		// The account itself must be refused: a refusal of whom it has become would come too late.
		wantForbidden(t, "as "+name, daemonUser, list(t.Context(), g.as(t, token, who)))
	}
	unbound := tokenRequest(g.own)
	unbound.Spec.BoundObjectRef = nil
	answer, err := client.CoreV1().ServiceAccounts(deployNamespace).CreateToken(t.Context(), deployName, unbound, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantForbidden(t, "with a token of the same account that is bound to no pod", daemonUser,
		list(t.Context(), g.as(t, answer.Status.Token, nodeIdentity(hereNode))))
}

func listPods(selector string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: selector})
		return err
	}
}

func createToken(pod *corev1.Pod, bound bool, audiences ...string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		request := tokenRequest(pod, audiences...)
		if !bound {
			request.Spec.BoundObjectRef = nil
		}
		_, err := c.CoreV1().ServiceAccounts(pod.Namespace).
			CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
		return err
	}
}

func (g *grants) refused() []attempt {
	return []attempt{
		{"list all pods", listPods("")},
		{"list another node's pods", listPods("spec.nodeName=" + thereNode)},
		{"token for another node's pod", createToken(g.elsewhere, true, vaultAud)},
		{"token bound to nothing", createToken(g.here, false, vaultAud)},
		{"token for an audience of no volume", createToken(g.here, true, "elsewhere")},
		{"list secrets", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets(hereNode).List(ctx, metav1.ListOptions{})
			return err
		}},
		{"get a secret of no pod", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Secrets(hereNode).Get(ctx, "of-no-pod", metav1.GetOptions{})
			return err
		}},
		{"get the service account of another node's pod", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ServiceAccounts(hereNode).Get(ctx, appAccount, metav1.GetOptions{})
			return err
		}},
		{"read another node", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Nodes().Get(ctx, thereNode, metav1.GetOptions{})
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
		{"list pods", listPods("spec.nodeName=" + hereNode)},
		{"token", createToken(g.here, true, vaultAud)},
		{"token for the API server", createToken(g.here, true)},
		{"watch pods", func(ctx context.Context, c kubernetes.Interface) error {
			return watched(c.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + hereNode}))
		}},
		{"get pod", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().Pods(hereNode).Get(ctx, g.here.Name, metav1.GetOptions{}))
		}},
		{"get service account", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().ServiceAccounts(hereNode).Get(ctx, "default", metav1.GetOptions{}))
		}},
	}, g.allowedObjects(named)...)
}

func (g *grants) allowedObjects(named func(string) metav1.ListOptions) []attempt {
	return []attempt{
		{"configmap", func(ctx context.Context, c kubernetes.Interface) error {
			maps := c.CoreV1().ConfigMaps(hereNode)
			return errors.Join(second(maps.Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})),
				second(maps.List(ctx, named("kube-root-ca.crt"))), watched(maps.Watch(ctx, named("kube-root-ca.crt"))))
		}},
		{"secret", func(ctx context.Context, c kubernetes.Interface) error {
			secrets := c.CoreV1().Secrets(hereNode)
			return errors.Join(second(secrets.Get(ctx, secretName, metav1.GetOptions{})),
				second(secrets.List(ctx, named(secretName))), watched(secrets.Watch(ctx, named(secretName))))
		}},
		{"the node itself", func(ctx context.Context, c kubernetes.Interface) error {
			nodes := c.CoreV1().Nodes()
			return errors.Join(second(nodes.List(ctx, named(hereNode))), watched(nodes.Watch(ctx, named(hereNode))))
		}},
		{"clustertrustbundles", func(ctx context.Context, c kubernetes.Interface) error {
			bundles := c.CertificatesV1().ClusterTrustBundles()
			_, err := bundles.Get(ctx, "no-such-bundle", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				err = nil
			}
			return errors.Join(err, second(bundles.List(ctx, metav1.ListOptions{})), watched(bundles.Watch(ctx, metav1.ListOptions{})))
		}},
		{"events", func(ctx context.Context, c kubernetes.Interface) error { return g.recordEvent(ctx, c) }},
	}
}

func (g *grants) recordEvent(ctx context.Context, c kubernetes.Interface) error {
	event, err := c.CoreV1().Events(hereNode).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: "conformance-"},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: hereNode, Name: g.here.Name, UID: g.here.UID},
		Reason:         "Conformance", Type: corev1.EventTypeNormal,
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = c.CoreV1().Events(hereNode).Patch(ctx, event.Name, types.MergePatchType, []byte(`{"count":2}`), metav1.PatchOptions{})
	return err
}

func second[T any](_ T, err error) error { return err }

func watched(w watch.Interface, err error) error {
	if err == nil {
		w.Stop()
	}
	return err
}
