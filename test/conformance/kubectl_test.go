package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/token-projector/token-projector/test/conformance/controlplane"
)

// Every command of kubectl in deploy/README.md does what it says, from the top of the repository.
func TestDeployCommands(t *testing.T) {
	const nodeName = "readme"
	createNode(t, nodeName)
	createNamespace(t, "monitoring")
	installCRDs(t)
	defer applyAll(t, manifests(t)) // for the tests that come
	readme, err := os.ReadFile(deployDir("README.md"))
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for line := range strings.Lines(string(readme)) {
		if args, ok := strings.CutPrefix(line, "    kubectl "); ok {
			commands++
			kubectl(t, strings.Fields(strings.ReplaceAll(args, "NODE", nodeName))...)
		}
	}
	if commands < 4 {
		t.Errorf("%d commands", commands)
	}
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

// kubectl runs one command as the administrator, at the top of the repository.
func kubectl(t *testing.T, args ...string) {
	t.Helper()
	home := t.TempDir()
	kubeconfig := filepath.Join(home, "kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, plane.Admin()); err != nil {
		t.Fatal(err)
	}
	command := append(plane.Kubectl(), args...)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = filepath.Dir(deployDir()), []string{"HOME=" + home, "KUBECONFIG=" + kubeconfig}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
