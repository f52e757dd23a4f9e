package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/emptydir"
	"k8s.io/kubernetes/pkg/volume/projected"
	"k8s.io/kubernetes/pkg/volume/util"
	"k8s.io/mount-utils"
)

// kubelet is the kubelet's side: its plugins for projected and emptyDir volumes, its AtomicWriter, its manager of
// trust bundles. Only mounting is faked: the directory stands for the tmpfs that would be mounted on it.
type kubelet struct {
	dir     string
	mounter mount.Interface
}

func newKubelet(dir string) *kubelet { return &kubelet{dir: dir, mounter: mount.NewFakeMounter(nil)} }

// setUp projects one volume, as the operation executor does it.
func (k *kubelet) setUp(w *world, name string) (version, error) {
	host := &host{dir: k.dir, world: w, mounter: k.mounter}
	plugin := projected.ProbeVolumePlugins()[0]
	if err := plugin.Init(host); err != nil {
		return version{}, fmt.Errorf("harness: %w", err)
	}
	pod := w.pod.DeepCopy()
	spec := volume.NewSpecFromVolume(&corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: w.volumes()[name]}})
	mounter, err := plugin.NewMounter(spec, pod)
	if err != nil {
		return version{}, fmt.Errorf("harness: %w", err)
	}
	args := volume.MounterArgs{FsUser: util.FsUserFrom(pod)}
	if pod.Spec.SecurityContext != nil {
		args.FsGroup = pod.Spec.SecurityContext.FSGroup
	}
	if err := makeTmpfs(mounter.GetPath()); err != nil {
		return version{}, fmt.Errorf("harness: %w", err)
	}
	if err := mounter.SetUp(args); err != nil {
		return version{}, err
	}
	return readVersion(mounter.GetPath())
}

// makeTmpfs makes a directory that is not there with the mode of a tmpfs that is mounted without one. Nothing takes the
// sticky bit away later.
func makeTmpfs(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return errors.Join(err, os.Chmod(dir, 0o777|os.ModeSticky))
}

// allocatable is what containers without limits may use.
var allocatable = corev1.ResourceList{
	corev1.ResourceCPU: resource.MustParse("3920m"), corev1.ResourceMemory: resource.MustParse("7Gi"),
	corev1.ResourceEphemeralStorage: resource.MustParse("51234567890"),
}

// host is what the kubelet's volume code asks the kubelet for. It serves one world from memory.
type host struct {
	volume.VolumeHost        // nil: what is not below is not asked for
	volume.KubeletVolumeHost // likewise

	dir     string
	world   *world
	mounter mount.Interface
}

func (h *host) GetPodVolumeDir(uid types.UID, plugin, name string) string {
	return filepath.Join(h.dir, "pods", string(uid), "volumes", plugin, name)
}

func (h *host) GetPodPluginDir(uid types.UID, plugin string) string {
	return filepath.Join(h.dir, "pods", string(uid), "plugins", plugin)
}

func (h *host) GetPluginDir(plugin string) string { return filepath.Join(h.dir, "plugins", plugin) }

func (h *host) GetMounter() mount.Interface { return h.mounter }

// GetKubeClient is asked only whether there is one.
func (h *host) GetKubeClient() kubernetes.Interface { return &kubernetes.Clientset{} }

func (h *host) GetNodeAllocatable() (corev1.ResourceList, error) { return allocatable, nil }

func (h *host) NewWrapperMounter(name string, spec volume.Spec, pod *corev1.Pod) (volume.Mounter, error) {
	spec.Volume.Name = "wrapped_" + name
	return h.emptyDir().NewMounter(&spec, pod)
}

func (h *host) NewWrapperUnmounter(name string, _ volume.Spec, uid types.UID) (volume.Unmounter, error) {
	return h.emptyDir().NewUnmounter("wrapped_"+name, uid)
}

func (h *host) emptyDir() volume.VolumePlugin {
	plugin := emptydir.ProbeVolumePlugins()[0]
	_ = plugin.Init(h) // keeps the host; never fails
	return plugin
}

func (h *host) GetSecretFunc() func(namespace, name string) (*corev1.Secret, error) {
	return h.world.secret
}

func (h *host) GetConfigMapFunc() func(namespace, name string) (*corev1.ConfigMap, error) {
	return h.world.configMap
}

func (h *host) GetServiceAccountTokenFunc() func(namespace, name string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return h.world.createToken
}

func (h *host) DeleteServiceAccountTokenFunc() func(types.UID) { return func(types.UID) {} }

func (h *host) GetTrustAnchorsByName(ctx context.Context, name string, allowMissing bool) ([]byte, error) {
	m, err := newBundleManager(ctx, h.world)
	if err != nil {
		return nil, err
	}
	return m.GetTrustAnchorsByName(ctx, name, allowMissing)
}

func (h *host) GetTrustAnchorsBySigner(ctx context.Context, signer string, selector *metav1.LabelSelector, allowMissing bool) ([]byte, error) {
	m, err := newBundleManager(ctx, h.world)
	if err != nil {
		return nil, err
	}
	return m.GetTrustAnchorsBySigner(ctx, signer, selector, allowMissing)
}
