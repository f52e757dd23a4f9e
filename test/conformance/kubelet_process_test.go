//go:build e2e

package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"k8s.io/client-go/rest"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/conformance/controlplane"
)

// kubelet is a kubelet that runs, with its container runtime.
type kubelet struct {
	root    string // what it knows as /var/lib/kubelet
	runtime *containerRuntime
	cmd     *exec.Cmd
	logFile string
	done    chan error
}

// startKubelet starts a kubelet for a node and waits until it has registered it. config is what it talks to the API server
// with: a node's credentials, to the server itself or to whatever stands between.
func startKubelet(t *testing.T, node string, config *rest.Config) *kubelet {
	t.Helper()
	coverMachine(t)
	dir := t.TempDir()
	t.Cleanup(func() { // before the directory goes
		points := mountsWith(t, dir)
		for i := len(points) - 1; i >= 0; i-- {
			unmount(t, points[i])
		}
	})
	k := &kubelet{root: filepath.Join(dir, "kubelet"), logFile: filepath.Join(dir, "kubelet.log"), done: make(chan error, 1)}
	var endpoint string
	k.runtime, endpoint = startRuntime(t, dir)
	k.launch(t, node, config, dir, endpoint)
	eventually(t, func() error {
		_, err := client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
		return k.orEnded(err)
	})
	return k
}

func (k *kubelet) launch(t *testing.T, node string, config *rest.Config, dir, endpoint string) {
	t.Helper()
	binary, err := controlplane.BuildKubelet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, configFile := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "config.yaml")
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(kubeletConfig(dir, endpoint))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(configFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(k.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	k.cmd = exec.Command(binary, "--v=2", "--hostname-override="+node, "--kubeconfig="+kubeconfig, "--config="+configFile,
		"--root-dir="+k.root, "--cert-dir="+filepath.Join(dir, "pki"))
	k.cmd.Dir = t.TempDir() // should it clean up there, there is nothing
	k.cmd.Stdout, k.cmd.Stderr = log, log
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := k.cmd.Start(); err != nil {
		t.Fatalf("start the kubelet: %v", err)
	}
	go func() { k.done <- k.cmd.Wait(); close(k.done) }()
	t.Cleanup(func() { k.end(t) })
}

// kubeletConfig is the usual configuration, without what needs a real container: cgroups, images, ports, firewall rules.
func kubeletConfig(dir, endpoint string) *kubeletv1beta1.KubeletConfiguration {
	return &kubeletv1beta1.KubeletConfiguration{
		TypeMeta:                      metav1.TypeMeta{APIVersion: kubeletv1beta1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		ContainerRuntimeEndpoint:      endpoint,
		PodLogsDir:                    filepath.Join(dir, "logs"),
		VolumePluginDir:               filepath.Join(dir, "plugins"),
		EnableServer:                  ptr.To(false),
		HealthzPort:                   ptr.To[int32](0),
		Authentication:                kubeletv1beta1.KubeletAuthentication{Webhook: kubeletv1beta1.KubeletWebhookAuthentication{Enabled: ptr.To(false)}},
		Authorization:                 kubeletv1beta1.KubeletAuthorization{Mode: kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow},
		CgroupsPerQOS:                 ptr.To(false),
		EnforceNodeAllocatable:        []string{"none"},
		FailCgroupV1:                  ptr.To(false),
		FailSwapOn:                    ptr.To(false),
		LocalStorageCapacityIsolation: ptr.To(false),
		MakeIPTablesUtilChains:        ptr.To(false),
		ProtectKernelDefaults:         true, // an error, should it not find what coverMachine has put there
		EvictionHard:                  map[string]string{"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
		ResolverConfig:                ptr.To(""),
	}
}

// orEnded is err, or that the kubelet has ended, which explains it.
func (k *kubelet) orEnded(err error) error {
	select {
	case ended := <-k.done:
		return fmt.Errorf("the kubelet has ended: %v", ended)
	default:
		return err
	}
}

// awaitRunning waits until the pod's only container has been started.
func (k *kubelet) awaitRunning(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	eventually(t, func() error {
		if !k.runtime.running(string(pod.UID), pod.Spec.Containers[0].Name) {
			return k.orEnded(fmt.Errorf("the container of %s does not run", pod.Name))
		}
		return nil
	})
}

// suspend stops the kubelet where it is, and resume lets it go on.
func (k *kubelet) suspend(t *testing.T) { k.signal(t, syscall.SIGSTOP) }
func (k *kubelet) resume(t *testing.T)  { k.signal(t, syscall.SIGCONT) }

func (k *kubelet) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := k.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%v to the kubelet: %v", s, err)
	}
}

// end kills what still runs, and shows the log of a test that failed.
func (k *kubelet) end(t *testing.T) {
	_ = k.cmd.Process.Kill() // an error means it has ended
	<-k.done
	if log, err := os.ReadFile(k.logFile); t.Failed() && err == nil {
		log = jwt.ReplaceAll(log, []byte("(a token)"))
		t.Logf("the kubelet's log, its end:\n%s", log[max(0, len(log)-8<<10):])
	}
}
