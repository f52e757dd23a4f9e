package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/kustomize/api/provider"
)

// deploy/overlays/service-account: what its RBAC and its policy grant the account itself, what they refuse, and what its
// comments and the daemon's warning say that they do not stop. The DaemonSet in it is shown to work.
func TestServiceAccountIdentity(t *testing.T) {
	g := newGrants(t, "plain")
	own := direct(t, boundToken(t, g.own), rest.ImpersonationConfig{})
	defer restoreDeploy(t, own)
	applyOverlayFile(t, "rbac.yaml")
	// None of what the policy is to refuse would be refused without it.
	for _, a := range g.againstPolicy() {
		eventually(t, func() error { return a.do(t.Context(), own) }) // RBAC may lag
	}
	for name, c := range g.withoutNode(t) {
		if err := createToken(g.here, vaultAud)(t.Context(), c); err != nil {
			t.Errorf("%s, without the policy: %v", name, err)
		}
	}
	applyOverlayFile(t, "policy.yaml")
	first := g.againstPolicy()[0]
	eventually(t, func() error { return byPolicy(first.do(t.Context(), own), first.says) })

	t.Run("granted", func(t *testing.T) { g.testPlainGrants(t, own) })
	t.Run("refused by the policy", func(t *testing.T) { g.testPolicy(t, own) })
	t.Run("refused by RBAC", func(t *testing.T) { g.testPlainRefusals(t, own) })
	t.Run("other accounts", g.testOtherAccounts)
	t.Run("renamed", g.testRenamed)
	t.Run("daemon", func(t *testing.T) { testPlainDaemon(t) })
	t.Run("rotation", func(t *testing.T) {
		const nodeName = "plain-rotating"
		createNode(t, nodeName)
		createNamespace(t, nodeName)
		testRotation(t, nodeName, "--identity=service-account")
	})
}

// applyOverlayFile applies one file of the overlay by itself.
func applyOverlayFile(t *testing.T, name string) {
	t.Helper()
	applyDeploy(t)
	content, err := os.ReadFile(filepath.Join("..", "..", "deploy", "overlays", "service-account", name))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := provider.NewDefaultDepProvider().GetResourceFactory().SliceFromBytes(content)
	if err != nil || len(objects) == 0 {
		t.Fatalf("%d objects in %s: %v", len(objects), name, err)
	}
	for _, object := range objects {
		if err := apply(t, object, nil); err != nil {
			t.Fatalf("apply %s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
}

// restoreDeploy brings the account back to what it may for the other tests.
func restoreDeploy(t *testing.T, own kubernetes.Interface) {
	policies := client.AdmissionregistrationV1()
	if err := errors.Join(
		policies.ValidatingAdmissionPolicyBindings().Delete(t.Context(), deployName, metav1.DeleteOptions{}),
		policies.ValidatingAdmissionPolicies().Delete(t.Context(), deployName, metav1.DeleteOptions{}),
	); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	for _, object := range manifests(t) {
		if err := apply(t, object, nil); err != nil {
			t.Errorf("apply %s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
	eventually(t, func() error {
		if err := listPods("")(t.Context(), own); !apierrors.IsForbidden(err) {
			return fmt.Errorf("the account may still list pods: %v", err)
		}
		return nil
	})
}

// refusedAttempt is one that the policy refuses, in these words.
type refusedAttempt struct {
	attempt
	says string
}

const (
	saysBound     = "only that are bound to a pod, by name and UID"
	saysAudience  = "only for one audience that RBAC grants it"
	saysRequester = "must use a token that is bound to a pod on a node"
)

// againstPolicy is what only the policy refuses.
func (g *grants) againstPolicy() []refusedAttempt {
	here := boundTo("Pod", g.here.Name, g.here.UID)
	bound := func(name string, to *authenticationv1.BoundObjectReference) refusedAttempt {
		return refusedAttempt{attempt{name, g.createBound(to, vaultAud)}, saysBound}
	}
	audience := func(name string, audiences ...string) refusedAttempt {
		return refusedAttempt{attempt{name, g.createBound(here, audiences...)}, saysAudience}
	}
	return []refusedAttempt{
		bound("bound to nothing", nil),
		bound("bound to a Secret", g.toSecret),
		bound("bound to the node", g.toNode),
		bound("bound to a pod without its UID", boundTo("Pod", g.here.Name, "")),
		audience("for the API server"),
		audience("for the API server, by its name", "https://kubernetes.default.svc.cluster.local"),
		audience("for another audience", "elsewhere"),
		audience("for every audience", "*"),
		audience("for a path of the audience", vaultAud+"/x"),
		audience("for two audiences", vaultAud, "elsewhere"),
		audience("for an audience twice", vaultAud, vaultAud),
	}
}

// byPolicy says what is wrong unless the error is the policy's, in these words.
func byPolicy(err error, says string) error {
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'token-projector'") || !strings.Contains(err.Error(), says) {
		return fmt.Errorf("%v, want Forbidden by the policy: %s", err, says)
	}
	return nil
}

// testPlainGrants: what the daemon needs, and what the warning says that nothing stops.
func (g *grants) testPlainGrants(t *testing.T, own kubernetes.Interface) {
	named := metav1.ListOptions{FieldSelector: "metadata.name=kube-root-ca.crt"}
	for _, a := range []attempt{
		{"list the node's pods", listPods("spec.nodeName=" + g.node)},
		{"watch pods", func(ctx context.Context, c kubernetes.Interface) error {
			return watched(c.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + g.node}))
		}},
		{"token", createToken(g.here, vaultAud)},
		{"service account", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().ServiceAccounts(g.namespace).Get(ctx, "default", metav1.GetOptions{}))
		}},
		{"kube-root-ca.crt", func(ctx context.Context, c kubernetes.Interface) error {
			maps := c.CoreV1().ConfigMaps(g.namespace)
			return errors.Join(second(maps.List(ctx, named)), watched(maps.Watch(ctx, named)))
		}},
		{"node", func(ctx context.Context, c kubernetes.Interface) error {
			named := metav1.ListOptions{FieldSelector: "metadata.name=" + g.node}
			return errors.Join(second(c.CoreV1().Nodes().List(ctx, named)), watched(c.CoreV1().Nodes().Watch(ctx, named)))
		}},
		{"clustertrustbundles", func(ctx context.Context, c kubernetes.Interface) error {
			bundles := c.CertificatesV1().ClusterTrustBundles()
			return errors.Join(second(bundles.List(ctx, metav1.ListOptions{})), watched(bundles.Watch(ctx, metav1.ListOptions{})))
		}},
		{"events", g.recordEvent},
		// Not stopped:
		{"list all pods", listPods("")},
		{"token for another node's pod", createToken(g.elsewhere, vaultAud)},
	} {
		if err := a.do(t.Context(), own); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	}
}

func (g *grants) testPolicy(t *testing.T, own kubernetes.Interface) {
	for _, a := range g.againstPolicy() {
		if err := byPolicy(a.do(t.Context(), own), a.says); err != nil {
			t.Errorf("a token %s: %v", a.name, err)
		}
	}
	for name, c := range g.withoutNode(t) {
		if err := byPolicy(createToken(g.here, vaultAud)(t.Context(), c), saysRequester); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What no policy can see, the server does: that there is such a pod, of that account.
	if err := g.createBound(boundTo("Pod", g.here.Name, "another"), vaultAud)(t.Context(), own); !apierrors.IsConflict(err) {
		t.Errorf("a token for a pod with another UID: %v, want Conflict", err)
	}
	if err := g.createBound(boundTo("Pod", g.elsewhere.Name, g.elsewhere.UID), vaultAud)(t.Context(), own); !apierrors.IsBadRequest(err) {
		t.Errorf("a token of another account than the pod's: %v, want BadRequest", err)
	}
}

// withoutNode are clients with tokens of the account that are not of a pod on a node.
func (g *grants) withoutNode(t *testing.T) map[string]kubernetes.Interface {
	t.Helper()
	free := daemonSetTemplate(t, "")
	free.GenerateName = g.namespace + "-free-"
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{GenerateName: g.namespace + "-"}}
	secret = must[*corev1.Secret](t)(client.CoreV1().Secrets(deployNamespace).Create(t.Context(), secret, metav1.CreateOptions{}))
	clients := map[string]kubernetes.Interface{}
	for name, to := range map[string]*authenticationv1.BoundObjectReference{
		"with a token that is bound to nothing":          nil,
		"with a token that is bound to a Secret":         boundTo("Secret", secret.Name, ""),
		"with a token that is bound to a node":           boundTo("Node", g.node, ""),
		"with a token that is bound to a pod on no node": tokenRequest(createPod(t, free)).Spec.BoundObjectRef,
	} {
		clients[name] = direct(t, accountToken(t, g.own, to), rest.ImpersonationConfig{})
	}
	return clients
}

// testPlainRefusals: what the account may not at all.
func (g *grants) testPlainRefusals(t *testing.T, own kubernetes.Interface) {
	for _, a := range append(g.refusedObjects(), []attempt{
		{"list configMaps", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().ConfigMaps(g.namespace).List(ctx, metav1.ListOptions{}))
		}},
		{"watch the secrets of all namespaces", func(ctx context.Context, c kubernetes.Interface) error {
			return watched(c.CoreV1().Secrets("").Watch(ctx, metav1.ListOptions{}))
		}},
		{"list a secret by name", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().Secrets(g.namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + secretName}))
		}},
		{"list service accounts", func(ctx context.Context, c kubernetes.Interface) error {
			return second(c.CoreV1().ServiceAccounts(g.namespace).List(ctx, metav1.ListOptions{}))
		}},
		{"make a pod", func(ctx context.Context, c kubernetes.Interface) error {
			pod, options := newPod(g.namespace, "made", "default", ""), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
			return second(c.CoreV1().Pods(g.namespace).Create(ctx, pod, options))
		}},
	}...) {
		if a.name == "get the service account of another node's pod" || a.name == "list all nodes" {
			continue // which is granted: RBAC knows no nodes
		}
		if err := a.do(t.Context(), client); err != nil {
			t.Errorf("%s, asked by the administrator: %v", a.name, err)
		}
		wantForbidden(t, a.name, daemonUser, a.do(t.Context(), own))
	}
	// The rules that impersonate are gone. For some seconds the server remembers whom the account was allowed to be.
	token := boundToken(t, g.own)
	for _, who := range []rest.ImpersonationConfig{nodeIdentity(g.node), nodeIdentity(g.other), {UserName: "conformance-admin", Groups: []string{"system:masters"}}} {
		list, c := listPods("spec.nodeName="+g.node), direct(t, token, who)
		eventually(t, func() error {
			if err := list(t.Context(), c); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), daemonUser) {
				return fmt.Errorf("as %s: %v, want Forbidden", who.UserName, err)
			}
			return nil
		})
	}
}

// testOtherAccounts: the policy is about one account, and nobody else is asked for anything.
func (g *grants) testOtherAccounts(t *testing.T) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "other"}}
	account = must[*corev1.ServiceAccount](t)(client.CoreV1().ServiceAccounts(deployNamespace).Create(t.Context(), account, metav1.CreateOptions{}))
	bindClusterRole(t, account, deployName) // the same rights, without the policy
	answer, err := client.CoreV1().ServiceAccounts(deployNamespace).
		CreateToken(t.Context(), account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	other := direct(t, answer.Status.Token, rest.ImpersonationConfig{})
	for _, a := range g.againstPolicy() {
		eventually(t, func() error { return a.do(t.Context(), other) }) // RBAC may lag
		if err := a.do(t.Context(), client); err != nil {
			t.Errorf("an administrator's token %s: %v", a.name, err)
		}
	}
}

// testPlainDaemon: the DaemonSet with the flag of the overlay projects, but for a Secret that no Role grants yet.
func testPlainDaemon(t *testing.T) {
	const nodeName = "plain-daemon"
	createNode(t, nodeName)
	createNamespace(t, nodeName)
	secret := createSecret(t, nodeName, "app")
	secret.StringData = map[string]string{"password": "no-real-password"}
	if _, err := client.CoreV1().Secrets(nodeName).Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	own, root := daemonSetPod(t, nodeName), t.TempDir()
	token := boundToken(t, own)
	d := startCommand(t, t, inSandbox(t, own, root, credentials(t, own, token), plane, "--identity=service-account"))
	plain, withSecret := createPod(t, newPod(nodeName, "plain", appAccount, nodeName, vault(600))), createPod(t, unmountedPod(nodeName))
	eventually(t, func() error { return missing(volumeDir(root, plain, vaultVolume), vaultFile) })
	eventually(t, func() error {
		return d.wantMetric(1, "token_projector_volume_errors", "reason", "ObjectUnreadable")
	})
	meta := metav1.ObjectMeta{Name: deployName, Namespace: nodeName}
	_, err := client.RbacV1().Roles(nodeName).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{ // as rbac.yaml advises
		APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"app"}, Verbs: []string{"list", "watch"},
	}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.RbacV1().RoleBindings(nodeName).Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: deployName},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: deployName, Namespace: deployNamespace}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := volumeDir(root, withSecret, vaultVolume)
	eventually(t, func() error { return missing(dir, vaultFile, "ca.crt", "namespace", "password") })
	value := readToken(t, dir, vaultFile)
	if err := notTokenOf(review(t, value, vaultAud), withSecret); err != nil {
		t.Error(err)
	}
	if err := d.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	log, err := os.ReadFile(d.logFile)
	if n := strings.Count(string(log), "nothing ties this daemon's credential to its node"); err != nil || n != 1 {
		t.Errorf("the warning was said %d times, want once: %v", n, err)
	}
	wantNoLeak(t, d.logFile, []string{token, value, "no-real-password"})
}

// testRenamed: an account that a kustomization put into another namespace, or gave a prefix or suffix, is still the policy's.
func (g *grants) testRenamed(t *testing.T) {
	for user, matched := range map[string]bool{
		"system:serviceaccount:tokens:token-projector":          true,
		"system:serviceaccount:tokens:blue-token-projector-two": true,
		"system:serviceaccount:token-projector:other":           false,
	} {
		config := rest.CopyConfig(plane.Admin())
		config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}, Extra: map[string][]string{"example.com/some": {"extra"}}}
		err := g.createBound(nil, vaultAud)(t.Context(), kubernetes.NewForConfigOrDie(config))
		if matched {
			err = byPolicy(err, saysRequester)
		}
		if err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
}
