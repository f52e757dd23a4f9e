package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"github.com/token-projector/token-projector/test/cases"
)

// The token of a pod that is gone is worth nothing: at once when its object is gone, and else 60 s after the time of its
// deletion. The server remembers for 10 s that it has accepted a token.
func TestStolenToken(t *testing.T) {
	t.Parallel()
	g := newGrants(t, "stolen")
	terminating := daemonSetPod(t, g.other)
	finalizers := `{"metadata":{"finalizers":%s}}`
	patchPod(t, terminating, fmt.Sprintf(finalizers, `["conformance.invalid/held"]`))
	defer patchPod(t, terminating, fmt.Sprintf(finalizers, "null"))
	for _, own := range []*corev1.Pod{g.own, terminating} {
		c := direct(t, boundToken(t, own), nodeIdentity(own.Spec.NodeName))
		list := listPods("spec.nodeName=" + own.Spec.NodeName)
		eventually(t, func() error { return list(t.Context(), c) })
		deletePod(t, own, 0)
		if own == terminating { // it is needed until the end
			if err := list(t.Context(), c); err != nil {
				t.Errorf("of a terminating pod: %v", err)
			}
		}
		deleted := time.Now()
		within(t, 2*patience, func() error { // the server takes a minute, by its leeway, and ten seconds more
			if err := list(t.Context(), c); !apierrors.IsUnauthorized(err) {
				return fmt.Errorf("the token of a pod that is gone lists pods: %v, want Unauthorized", err)
			}
			return nil
		})
		t.Logf("refused %v after the deletion of %s", time.Since(deleted).Round(time.Second), own.Name)
		if err := g.createBound(boundTo("Pod", g.here.Name, g.here.UID), vaultAud)(t.Context(), c); !apierrors.IsUnauthorized(err) {
			t.Errorf("the token of a pod that is gone requests a token: %v, want Unauthorized", err)
		}
	}
}

func patchPod(t *testing.T, pod *corev1.Pod, patch string) {
	t.Helper()
	_, err := client.CoreV1().Pods(pod.Namespace).Patch(t.Context(), pod.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Error(err)
	}
}

// A server that is too old, or has constrained impersonation off, is the same to us: it knows the old kind alone. Turned on,
// it needs no restart of the daemon.
func TestImpersonationOff(t *testing.T) {
	t.Parallel()
	const nodeName = "impersonation-off"
	createNode(t, nodeName)
	server, err := plane.ServerWith(t.Context(), "--feature-gates=ConstrainedImpersonation=false")
	if err != nil {
		t.Fatal(err)
	}
	own := daemonSetPod(t, nodeName)
	d := launch(t, t, inSandbox(t, own, t.TempDir(), credentials(t, own, boundToken(t, own)), server))
	d.wantAdvice(t, "upgrade it to Kubernetes 1.36 or newer", "feature gate ConstrainedImpersonation", "--identity kubeconfig", "deploy/overlays/service-account")
	if err := server.Restart(t.Context(), cases.Usual); err != nil {
		t.Fatal(err)
	}
	d.wantRecovery(t)
}

// Without the RBAC of deploy/ the daemon says so; granted, it needs no restart. Half of it is not enough.
func TestImpersonationNotGranted(t *testing.T) {
	t.Parallel()
	const nodeName = "not-granted"
	createNode(t, nodeName)
	applyDeploy(t)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	if _, err := client.CoreV1().ServiceAccounts(deployNamespace).Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	own := accountPod(t, nodeName, account.Name)
	d := launch(t, t, inSandbox(t, own, t.TempDir(), credentials(t, own, boundToken(t, own)), plane))
	d.wantAdvice(t, "apply the RBAC of deploy", "impersonate-on:associated-node")
	bindClusterRole(t, account, must[*rbacv1.ClusterRole](t)(client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName}, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"pods"},
			Verbs: []string{"impersonate-on:associated-node:list", "impersonate-on:associated-node:watch"},
		}},
	}, metav1.CreateOptions{})).Name)
	eventually(t, func() error { // it may do it as the node, but not be the node: the log does not say that it is another half
		_, err := direct(t, boundToken(t, own), nodeIdentity(nodeName)).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		if err == nil || !strings.Contains(err.Error(), "impersonate:associated-node") {
			return fmt.Errorf("with half of the rights: %v", err)
		}
		return nil
	})
	if n := len(d.lines(t, "advice")); n != 1 {
		t.Errorf("%d lines with advice, want one", n)
	}
	bindClusterRole(t, account, deployName)
	d.wantRecovery(t)
}

// A daemon that takes another node for its own may not be that one, and says why.
func TestImpersonationOfAnotherNode(t *testing.T) {
	t.Parallel()
	const nodeName, other = "mistaken-a", "mistaken-b"
	createNode(t, nodeName)
	createNode(t, other)
	own := daemonSetPod(t, nodeName)
	d := launch(t, t, inSandbox(t, own, t.TempDir(), credentials(t, own, boundToken(t, own)), plane, "--node-name="+other))
	d.wantAdvice(t, "not bound to a pod on node "+other, "spec.nodeName")
}

// accountPod is a pod like the DaemonSet's, of another account.
func accountPod(t *testing.T, nodeName, account string) *corev1.Pod {
	t.Helper()
	pod := daemonSetTemplate(t, nodeName)
	pod.Spec.ServiceAccountName = account
	return createPod(t, pod)
}

func bindClusterRole(t *testing.T, account *corev1.ServiceAccount, role string) {
	t.Helper()
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: account.Name + "-" + role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account.Name, Namespace: deployNamespace}},
	}
	if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// wantAdvice wants one line of the daemon, however often it was refused, that says all this; it lives, is not ready, and
// tries on.
func (d *daemon) wantAdvice(t *testing.T, says ...string) {
	t.Helper()
	eventually(t, func() error {
		if err := d.ready(); err == nil || d.health == "" || !strings.Contains(err.Error(), "503") {
			return fmt.Errorf("ready: %v, want 503", err)
		}
		refusals, _, err := d.metric("rest_client_requests_total", "code", "403", "method", "GET")
		if err == nil && refusals < 4 {
			err = fmt.Errorf("%v requests were refused", refusals)
		}
		return err
	})
	if _, err := get(d.health + "/healthz"); err != nil {
		t.Error(err)
	}
	lines := d.lines(t, "advice")
	if len(lines) != 1 {
		t.Fatalf("%d lines with advice, want one: %v", len(lines), lines)
	}
	for _, say := range says {
		if !strings.Contains(lines[0]["advice"].(string), say) {
			t.Errorf("%v does not say %q", lines[0], say)
		}
	}
	if lines[0]["level"] != "error" || !strings.Contains(lines[0]["error"].(string), "cannot") {
		t.Errorf("%v is no error that quotes the server", lines[0])
	}
}

// wantRecovery wants the same process to become ready, and to say so.
func (d *daemon) wantRecovery(t *testing.T) {
	t.Helper()
	eventually(t, d.ready)
	eventually(t, func() error {
		if log, err := os.ReadFile(d.logFile); err != nil || bytes.Count(log, []byte("pods are watched again")) != 1 {
			return fmt.Errorf("the log does not say, once, that it is over: %v", err)
		}
		return nil
	})
	if err := d.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
}

// lines are those of the log that have a field.
func (d *daemon) lines(t *testing.T, field string) (found []map[string]any) {
	t.Helper()
	log, err := os.ReadFile(d.logFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		var entry map[string]any
		if json.Unmarshal(line, &entry) == nil && entry[field] != nil {
			found = append(found, entry)
		}
	}
	return found
}

// In a pod the daemon reads its own credential anew: here the one that it was started with dies with another pod.
func TestOwnCredentialRotates(t *testing.T) {
	t.Parallel()
	const nodeName = "rotating"
	createNode(t, nodeName)
	createNamespace(t, nodeName)
	testRotation(t, nodeName)
}

// testRotation starts the daemon with the token of a pod that goes, and gives it that of another one on the same node.
func testRotation(t *testing.T, nodeName string, flags ...string) {
	t.Helper()
	first, second := daemonSetTemplate(t, nodeName), daemonSetTemplate(t, nodeName)
	first.Name, second.Name = nodeName+"-first", nodeName+"-second"
	first, second = createPod(t, first), createPod(t, second)
	old, token := boundToken(t, first), boundToken(t, second)
	root, dir := t.TempDir(), credentials(t, first, old)
	d := startCommand(t, t, inSandbox(t, first, root, dir, plane, flags...))

	if err := errors.Join(os.WriteFile(filepath.Join(dir, "new"), []byte(token), 0o600),
		os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "token"))); err != nil {
		t.Fatal(err)
	}
	deletePod(t, first, 0)
	eventually(t, func() error {
		if _, err := direct(t, old, nodeIdentity(nodeName)).ServerVersion(); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("the old token is answered with %v", err)
		}
		return nil
	})
	pod := createPod(t, newPod(nodeName, "after", appAccount, nodeName, vault(600)))
	eventually(t, func() error { return missing(volumeDir(root, pod, vaultVolume), vaultFile) })
	granted, err := plane.TokensGranted(daemonUser)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(granted, func(e auditv1.Event) bool {
		return e.ObjectRef.Namespace == nodeName && slices.Equal([]string(e.User.Extra[podNameExtra]), []string{second.Name})
	}) {
		t.Errorf("of %d TokenRequests none was made with the new token", len(granted))
	}
	if err := d.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	wantNoLeak(t, d.logFile, []string{old, token, readToken(t, volumeDir(root, pod, vaultVolume), vaultFile)})
}
