package kubelet

import (
	"crypto/sha256"
	"encoding/pem"
	"fmt"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containers are one to three, and perhaps others, with users and resources.
func (d dice) containers(spec *corev1.PodSpec) {
	users, groups := ids()
	if d.chance(70) {
		spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: maybe(d, 70, users...), FSGroup: maybe(d, 50, groups...)}
	}
	for n := range d.IntN(3) {
		spec.InitContainers = append(spec.InitContainers, d.container(fmt.Sprintf("init-%d", n)))
	}
	for n := range 1 + d.IntN(3) {
		spec.Containers = append(spec.Containers, d.container(fmt.Sprintf("container-%d", n)))
	}
	if d.chance(20) {
		d.addEphemeral(spec)
	}
}

func (d dice) container(name string) corev1.Container {
	c := corev1.Container{Name: name, SecurityContext: d.securityContext(20)}
	for _, list := range []*corev1.ResourceList{&c.Resources.Limits, &c.Resources.Requests} {
		if d.chance(60) {
			*list = corev1.ResourceList{
				corev1.ResourceCPU:              resource.MustParse(pick(d, "0", "1", "250m", "1500m", "0.0001")),
				corev1.ResourceMemory:           resource.MustParse(pick(d, "64Mi", "1G", "1", "1500m", "3Gi")),
				corev1.ResourceEphemeralStorage: resource.MustParse(pick(d, "1Gi", "10k")),
			}
		}
		if d.chance(20) {
			*list = corev1.ResourceList{"hugepages-2Mi": resource.MustParse(pick(d, "4Mi", "0"))}
		}
	}
	return c
}

// securityContext mostly names the first of the users, if any, so that all containers have the same one.
func (d dice) securityContext(percent float64) *corev1.SecurityContext {
	if !d.chance(percent) {
		return nil
	}
	users, _ := ids()
	if d.chance(80) {
		users = users[min(1, len(users)-1):][:1]
	}
	return &corev1.SecurityContext{RunAsUser: maybe(d, 90, users...)}
}

func (d dice) addEphemeral(spec *corev1.PodSpec) {
	c := d.container(fmt.Sprintf("ephemeral-%d", len(spec.EphemeralContainers)))
	spec.EphemeralContainers = append(spec.EphemeralContainers, corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: c.Name, SecurityContext: d.securityContext(80)},
	})
}

// scratch is a volume that is mounted below others.
var scratch = corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}

// mounts are those of one container, some below the first.
func (d dice) mounts(volumes []corev1.Volume) []corev1.VolumeMount {
	if !d.chance(30) {
		return nil
	}
	mounts := []corev1.VolumeMount{{Name: pick(d, volumes...).Name, MountPath: "/mnt/top"}}
	for range d.IntN(3) {
		// "other" and "file-1" may be files of the volume, by its spec; "k1" and "plain" by an object's key.
		below := pick(d, "sub", "sub/deeper", "sub-1", "sub.x", ".//a/../sub/", "other", "other/new", "file-1", "k1", "plain/new")
		mounts = append(mounts, corev1.VolumeMount{Name: scratch.Name, MountPath: pick(d, "/mnt/top/", "/mnt/top/", "/mnt/top-1/") + below})
	}
	return mounts
}

// resource is a resource of a container, mostly one that is there.
func (d dice) resource(w *world) *corev1.ResourceFieldSelector {
	return &corev1.ResourceFieldSelector{
		ContainerName: pick(d, "container-0", "container-0", "container-0", "container-0", "container-0", "container-0",
			w.pod.Spec.Containers[d.IntN(len(w.pod.Spec.Containers))].Name, "init-0", "ephemeral-0", "nobody"),
		Resource: pick(d, "limits.cpu", "limits.memory", "limits.ephemeral-storage", "requests.cpu", "requests.memory",
			"requests.ephemeral-storage", "limits.hugepages-2Mi", "requests.hugepages-2Mi"),
		Divisor: resource.MustParse(pick(d, "0", "1", "1m", "10m", "1k", "1Ki", "1Mi", "1Gi")),
	}
}

func (d dice) bundle() corev1.VolumeProjection {
	b := &corev1.ClusterTrustBundleProjection{Path: d.path(), Optional: maybe(d, 90, true, true, true, false), User: d.user(10)}
	switch {
	case d.chance(45):
		b.Name = new(bundleName(d.IntN(4)))
	case d.chance(98):
		b.SignerName = new(pick(d, signers...))
		b.LabelSelector = maybe(d, 95, metav1.LabelSelector{}, metav1.LabelSelector{MatchLabels: map[string]string{"tier": pick(d, "gold", "lead")}},
			metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpDoesNotExist}}})
	}
	return corev1.VolumeProjection{ClusterTrustBundle: b}
}

var signers = []string{"example.com/a", "example.com/b"}

func bundleName(n int) string { return fmt.Sprintf("bundle-%d", n) }

// bundles are trust bundles, some with a signer.
func (d dice) bundles() map[string]*certificatesv1.ClusterTrustBundle {
	bundles := map[string]*certificatesv1.ClusterTrustBundle{}
	for n := range 4 {
		if d.chance(80) {
			b := d.newBundle(bundleName(n))
			bundles[b.Name] = b
		}
	}
	return bundles
}

func (d dice) newBundle(name string) *certificatesv1.ClusterTrustBundle {
	b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if d.chance(70) {
		b.Spec.SignerName = pick(d, signers...)
	}
	if d.chance(60) {
		b.Labels = map[string]string{"tier": pick(d, "gold", "lead")}
	}
	b.Spec.TrustBundle = d.pem()
	return b
}

// pem is a few blocks, some of them twice. The kubelet does not look into them.
func (d dice) pem() string {
	var text strings.Builder
	for range d.IntN(5) {
		sum := sha256.Sum256([]byte{byte(d.IntN(8))})
		block := &pem.Block{Type: "CERTIFICATE", Bytes: append(sum[:], sum[:]...)}
		if d.chance(10) {
			block.Headers = map[string]string{"Comment": "of no interest"}
		}
		text.WriteString(pick(d, "", "", "\n", "a comment\n"))
		text.Write(pem.EncodeToMemory(block))
	}
	return text.String()
}
