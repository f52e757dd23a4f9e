package conformance

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/token-projector/token-projector/test/conformance/controlplane"
	"github.com/token-projector/token-projector/test/docs"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// needKubelet are the commands that a kubelet would have to answer, and what kubectl says once the API server has done its part.
var needKubelet = map[string]string{
	"kubectl -n token-projector port-forward POD 9477":                                        "pod is not running. Current status=Pending",
	"kubectl -n token-projector exec POD -- /token-projector inspect quickstart/vault-client": "no preferred addresses found",
}

// Every command of kubectl in the documents does what it says, typed at the top of a checkout.
func TestKubectl(t *testing.T) {
	const nodeName = "readme"
	createNode(t, nodeName)
	createNamespace(t, "monitoring")
	installCRDs(t)
	applyDeploy(t)
	defer applyAll(t, manifests(t)) // for the tests that come
	pod := createPod(t, newPod(deployNamespace, nodeName, deployName, nodeName))
	defer deletePod(t, pod, 0)
	top, err := filepath.Abs(filepath.Dir(deployDir()))
	if err != nil {
		t.Fatal(err)
	}
	r := newTypist(t, top)
	all, err := docs.All(top)
	if err != nil {
		t.Fatal(err)
	}
	typed, places := 0, strings.NewReplacer("NODE", nodeName, "POD", pod.Name)
	for _, c := range all {
		if !strings.HasPrefix(c.Text, "kubectl ") {
			continue
		}
		typed++
		r.keep(t, c.Files)
		out, err := r.types(t, places.Replace(c.Text))
		if says := needKubelet[c.Text]; says == "" && err != nil || says != "" && (err == nil || !strings.Contains(out, says)) {
			t.Errorf("%v: %v\n%s", c, err, out)
		}
	}
	if out, err := r.types(t, "kubectl get nodes planted"); err == nil || typed < 8 {
		t.Errorf("%d commands; a node that is not there: %v\n%s", typed, err, out)
	}
	testLabels(t, nodeName)
	testQuickstart(t, all)
}

// testQuickstart: of the pod that docs/quickstart.md shows, the daemon beside a kubelet keeps the token where its containers mount it,
// and nothing else. What the document has the daemon's pod say of it, the daemon says.
func testQuickstart(t *testing.T, all []docs.Command) {
	t.Helper()
	n := emptyNode(t, "quickstart-node")
	pods := client.CoreV1().Pods("quickstart")
	const name = "vault-client"
	if err := pods.Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Kind: "Node", Name: n.name},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := pods.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer deletePod(t, pod, 0)
	n.start(t, "--volumes=unmounted")
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, mount := range c.VolumeMounts {
			if mount.SubPathExpr != "" {
				dir := filepath.Join(n.root, strings.ReplaceAll(mount.SubPathExpr, "$(POD_UID)", string(pod.UID)))
				eventually(t, func() error { return missing(dir, "token") })
				n.seen = append(n.seen, readToken(t, dir, "token"))
			}
		}
	}
	if len(n.seen) != 2 {
		t.Errorf("%d containers mount the volume", len(n.seen))
	}
	if dirs, err := filepath.Glob(volumeDir(n.root, pod, "*")); err != nil || len(dirs) != 1 {
		t.Errorf("the daemon keeps %q, %v", dirs, err)
	}
	for _, c := range all {
		if _, args, is := strings.Cut(c.Text, "exec POD -- /token-projector "); is {
			out, err := exec.Command(image.binary, append(strings.Fields(args), "--root-dir", n.root)...).CombinedOutput()
			if err := errors.Join(err, c.Lacks(string(out))); err != nil || c.Prints == "" {
				t.Errorf("%v: it shows %q, %v\n%s", c, c.Prints, err, out)
			}
		}
	}
}

// testLabels: the labels that the documents give are those that the manifests select by.
func testLabels(t *testing.T, nodeName string) {
	t.Helper()
	policy, err := client.NetworkingV1().NetworkPolicies(deployNamespace).Get(t.Context(), deployName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	admits := policy.Spec.Ingress[0].From[0].NamespaceSelector
	monitoring, err := client.CoreV1().Namespaces().Get(t.Context(), "monitoring", metav1.GetOptions{})
	if err != nil || !matches(t, admits, monitoring.Labels) || matches(t, admits, nil) {
		t.Errorf("the policy admits %v; of namespace monitoring: %v, %v", admits, monitoring.Labels, err)
	}
	node, err := client.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range overlayPod(t, "kubelet-less", "").Spec.NodeSelector {
		if key != corev1.LabelOSStable && node.Labels[key] != value {
			t.Errorf("the overlay kubelet-less selects nodes by %s=%s, and the README's has %v", key, value, node.Labels)
		}
	}
}

func matches(t *testing.T, selector *metav1.LabelSelector, set map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(set))
}

// typist is somebody who types commands of kubectl, as the administrator, at the top of a checkout.
type typist struct{ dir, kubeconfig string }

// newTypist has a directory that looks like a checkout and is nobody else's, with the fake API server's kubeconfig where its
// README.md has that.
func newTypist(t *testing.T, top string) *typist {
	t.Helper()
	dir := t.TempDir()
	r := &typist{dir: dir, kubeconfig: filepath.Join(dir, "bin", "kubeconfig")}
	fake, err := fakeapi.Start(fakeapi.Options{Node: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "bin"), 0o755),
		os.Symlink(filepath.Join(top, "deploy"), filepath.Join(dir, "deploy")),
		controlplane.WriteKubeconfig(r.kubeconfig, plane.Admin()),
		fake.WriteAdminKubeconfig(filepath.Join(dir, "bin", "admin.kubeconfig")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// keep writes the files that a document shows.
func (r *typist) keep(t *testing.T, files []docs.File) {
	t.Helper()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(r.dir, f.Name), []byte(f.Content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// types types a command into a shell that has the control plane's kubectl.
func (r *typist) types(t *testing.T, text string) (string, error) {
	t.Helper()
	cmd := exec.Command("bash", "-c", `kubectl() { "${kubectl[@]}" "$@"; }; kubectl=("$@"); eval "$0"`, text)
	cmd.Args = append(cmd.Args, plane.Kubectl()...)
	cmd.Dir, cmd.Env = r.dir, []string{"HOME=" + r.dir, "KUBECONFIG=" + r.kubeconfig, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	return string(out), err
}
