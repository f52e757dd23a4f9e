package conformance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/utils/ptr"

	"github.com/token-projector/token-projector/test/conformance/controlplane"
)

// Who a DaemonSet's pod is to the API server, and where the kubelet would put its credentials.
const (
	daemonUser     = "system:serviceaccount:" + deployNamespace + ":" + deployName
	credentialsDir = "/var/run/secrets/kubernetes.io/serviceaccount"
	rootMount      = "/run/token-projector"
	kubeconfigDir  = "/etc/token-projector"  // of the overlay kubelet-less
	kubeletPods    = "/var/lib/kubelet/pods" // of the overlay observe, which mounts nothing else
)

// What the API server knows of whoever has a token that is bound to a pod.
const (
	nodeNameExtra = "authentication.kubernetes.io/node-name"
	podNameExtra  = "authentication.kubernetes.io/pod-name"
)

// The DaemonSet of deploy/, as a pod of one node, with no credentials but its token and no rights but deploy/'s RBAC.
func TestInCluster(t *testing.T) {
	const nodeName = "node-in-cluster"
	createNode(t, nodeName)
	createNamespace(t, nodeName)
	own := daemonSetPod(t, nodeName)
	const password = "no-real-password"
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "app"}, StringData: map[string]string{"password": password},
	}
	if _, err := client.CoreV1().Secrets(nodeName).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := createPod(t, unmountedPod(nodeName))

	root, token := t.TempDir(), boundToken(t, own)
	d := startCommand(t, t, inSandbox(t, own, root, credentials(t, own, token), plane))
	eventually(t, func() error {
		return missing(volumeDir(root, pod, vaultVolume), vaultFile, "ca.crt", "namespace", "password")
	})
	if got, err := os.ReadFile(filepath.Join(volumeDir(root, pod, vaultVolume), "password")); string(got) != password {
		t.Errorf("the secret's key: %d bytes, %v", len(got), err)
	}
	value := readToken(t, volumeDir(root, pod, vaultVolume), vaultFile)
	if err := notTokenOf(review(t, value, vaultAud), pod); err != nil {
		t.Error(err)
	}
	wantMode(t, filepath.Join(volumeDir(root, pod, vaultVolume), vaultFile), 0o644, os.Geteuid(), os.Getegid())
	wantActedAsNode(t, nodeName)
	owned := createPod(t, ownedPod(nodeName))
	testOwnedInCluster(t, root, owned)
	// What a container mounts is the kubelet's: of this node's three pods there are two volumes.
	eventually(t, func() error { return d.wantMetric(2, "token_projector_volumes", "state", "ready") })
	volumes, err := filepath.Glob(filepath.Join(root, "pods", "*", "volumes", "*", "*"))
	if err != nil || len(volumes) != 2 {
		t.Errorf("volumes on disk: %q, %v, want two", volumes, err)
	}
	deletePod(t, pod, 0)
	eventually(t, func() error {
		if _, err := os.Lstat(podDir(root, pod)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the directory of a deleted pod is still there: %v", err)
		}
		return nil
	})
	if err := d.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	wantNoLeak(t, d.logFile, []string{token, value, password})
}

// unmountedPod declares a volume that no container mounts.
func unmountedPod(nodeName string) *corev1.Pod {
	volume := vault(600)
	volume.Projected.Sources = append(volume.Projected.Sources,
		corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
		}},
		corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "app"},
		}},
		corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
			Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"},
		}}}})
	return newPod(nodeName, "unmounted", appAccount, nodeName, volume)
}

// ownedPod runs as a user and group that the daemon's capabilities let it give files to.
func ownedPod(nodeName string) *corev1.Pod {
	pod := newPod(nodeName, "owned", appAccount, nodeName, vault(600))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1234), FSGroup: ptr.To[int64](4321)}
	return pod
}

// testOwnedInCluster: the DaemonSet's capabilities are enough for owners, as root has them. An ordinary user's sandbox
// has no other ids: there the files are the daemon's own, and no group may read them.
func testOwnedInCluster(t *testing.T, root string, pod *corev1.Pod) {
	t.Helper()
	dir := volumeDir(root, pod, vaultVolume)
	eventually(t, func() error { return missing(dir, vaultFile) })
	user, group, mode, dirMode := 1234, 4321, uint32(0o640), uint32(0o2755)
	if os.Geteuid() != 0 {
		user, group, mode, dirMode = os.Geteuid(), os.Getegid(), 0o600, 0o755
	}
	wantMode(t, filepath.Join(dir, vaultFile), mode, user, group)
	wantMode(t, dir, dirMode, os.Geteuid(), group)
	wantMode(t, filepath.Join(dir, "..data"), dirMode, os.Geteuid(), group)
}

// daemonSetPod creates the pod that the DaemonSet's controller would: it is not running here.
func daemonSetPod(t *testing.T, nodeName string) *corev1.Pod {
	t.Helper()
	return createPod(t, daemonSetTemplate(t, nodeName))
}

func daemonSetTemplate(t *testing.T, nodeName string) *corev1.Pod {
	t.Helper()
	template := daemonSet(t).Spec.Template
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: deployNamespace, Name: nodeName, Labels: template.Labels},
		Spec:       template.Spec,
	}
	pod.Spec.NodeName = nodeName
	return pod
}

// boundToken requests the token that the kubelet would put into the pod.
func boundToken(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	return accountToken(t, pod, tokenRequest(pod).Spec.BoundObjectRef)
}

// accountToken requests a token of the pod's account, bound to any object, or to none.
func accountToken(t *testing.T, pod *corev1.Pod, to *authenticationv1.BoundObjectReference) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: to}}
	answer, err := client.CoreV1().ServiceAccounts(pod.Namespace).
		CreateToken(t.Context(), pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

// boundTo refers to any object.
func boundTo(kind, name string, uid types.UID) *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name, UID: uid}
}

// tokenRequest is the kubelet's for the pod, with these audiences.
func tokenRequest(pod *corev1.Pod, audiences ...string) *authenticationv1.TokenRequest {
	return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:      audiences,
		BoundObjectRef: boundTo("Pod", pod.Name, pod.UID),
	}}
}

// startInSandbox starts the pod's daemon with its token, and no flags but its spec's; "" if it has none.
func startInSandbox(t *testing.T, pod *corev1.Pod, root, token string) *daemon {
	t.Helper()
	secrets := ""
	if token != "" {
		secrets = credentials(t, pod, token)
	}
	return startCommand(t, t, inSandbox(t, pod, root, secrets, plane))
}

// inSandbox is the command of the pod's only container, from the image, with the mounts, arguments and capabilities of its
// spec, and flags. secrets is the directory of its credentials, server the one that it takes for its cluster's.
func inSandbox(t *testing.T, pod *corev1.Pod, root, secrets string, server interface{ Address() (host, port string) }, flags ...string) *exec.Cmd {
	t.Helper()
	container := pod.Spec.Containers[0]
	program := append(append([]string{}, container.Command...), container.Args...)
	if len(container.Command) == 0 {
		program = append(append([]string{}, image.entrypoint...), container.Args...)
	}
	host, port := server.Address()
	s := &sandbox{
		Root:         t.TempDir(),
		Mounts:       map[string]string{},
		Capabilities: keptCapabilities(t, container.SecurityContext),
		Argv:         append(append(program, flags...), addressFlags...),
		Env:          append(containerEnv(t, pod), "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port),
	}
	for _, mount := range container.VolumeMounts {
		switch mount.MountPath {
		case rootMount, kubeletPods:
			s.Mounts[mount.MountPath] = root
		case credentialsDir:
			s.Mounts[mount.MountPath] = secrets
		case kubeconfigDir:
			s.Mounts[mount.MountPath] = nodeCredentials(t, pod.Spec.NodeName)
		default:
			t.Fatalf("nothing to mount on %s", mount.MountPath)
		}
		if mount.ReadOnly {
			s.ReadOnly = append(s.ReadOnly, mount.MountPath)
		}
		if ptr.Deref(mount.MountPropagation, corev1.MountPropagationNone) == corev1.MountPropagationHostToContainer {
			s.Later = append(s.Later, mount.MountPath)
		}
	}
	if err := os.CopyFS(s.Root, os.DirFS(image.root)); err != nil {
		t.Fatal(err)
	}
	cmd, err := s.command()
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

func keptCapabilities(t *testing.T, sc *corev1.SecurityContext) []string {
	t.Helper()
	if len(sc.Capabilities.Drop) != 1 || sc.Capabilities.Drop[0] != "ALL" || !*sc.ReadOnlyRootFilesystem ||
		*sc.AllowPrivilegeEscalation || *sc.Privileged {
		t.Fatalf("the sandbox is not what the DaemonSet asks for: %v", sc)
	}
	var names []string
	for _, name := range sc.Capabilities.Add {
		names = append(names, string(name))
	}
	return names
}

func containerEnv(t *testing.T, pod *corev1.Pod) []string {
	t.Helper()
	var env []string
	for _, v := range pod.Spec.Containers[0].Env {
		value := v.Value
		if v.ValueFrom != nil {
			if v.ValueFrom.FieldRef == nil || v.ValueFrom.FieldRef.FieldPath != "spec.nodeName" {
				t.Fatalf("cannot resolve the environment variable %s", v.Name)
			}
			value = pod.Spec.NodeName
		}
		env = append(env, v.Name+"="+value)
	}
	return env
}

// credentials writes the three files of a pod's kube-api-access volume.
func credentials(t *testing.T, pod *corev1.Pod, token string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"token": token, "ca.crt": string(plane.CA()), "namespace": pod.Namespace,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// nodeCredentials writes a node's kubeconfig as the overlay kubelet-less expects it.
func nodeCredentials(t *testing.T, node string) string {
	t.Helper()
	config, err := plane.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := controlplane.WriteKubeconfig(filepath.Join(dir, "kubeconfig"), config); err != nil {
		t.Fatal(err)
	}
	return dir
}

// wantMode wants a file or directory to have a mode and an owner.
func wantMode(t *testing.T, name string, mode uint32, user, group int) {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(name, &stat); err != nil {
		t.Fatal(err)
	}
	if got := stat.Mode & 0o7777; got != mode || int(stat.Uid) != user || int(stat.Gid) != group {
		t.Errorf("%s: mode %o owner %d:%d, want %o and %d:%d", name, got, stat.Uid, stat.Gid, mode, user, group)
	}
}

// wantActedAsNode wants every request of the daemon on the node to have been the node's, by constrained impersonation.
func wantActedAsNode(t *testing.T, nodeName string) {
	t.Helper()
	events, err := plane.AuditEvents(func(event *auditv1.Event) bool {
		return event.Stage == auditv1.StageResponseComplete && event.User.Username == daemonUser &&
			slices.Equal([]string(event.User.Extra[nodeNameExtra]), []string{nodeName}) &&
			event.UserAgent != "" && !strings.HasPrefix(event.UserAgent, directAgent)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) == 0 {
		t.Error("the audit log has no request of the daemon")
	}
	for _, event := range events {
		metadata := event.AuthenticationMetadata
		if event.ImpersonatedUser == nil || event.ImpersonatedUser.Username != "system:node:"+nodeName ||
			metadata == nil || metadata.ImpersonationConstraint != "impersonate:associated-node" {
			t.Errorf("%s %s was not done as node %s: %v %v", event.Verb, event.RequestURI, nodeName, event.ImpersonatedUser, metadata)
		}
	}
}
