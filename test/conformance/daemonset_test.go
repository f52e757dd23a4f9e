package conformance

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// needs is what the pod of an overlay has, and no more.
type needs struct {
	mounts   map[string]corev1.VolumeMount // by directory, of the node and in the container: read-only or not, with which propagation
	caps     []corev1.Capability           // test/e2e/capabilities_test.go shows that it needs each
	token    bool                          // of its account
	priority string
}

func needsOf(overlay string) needs {
	n := needs{
		mounts:   map[string]corev1.VolumeMount{rootMount: {}},
		caps:     []corev1.Capability{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"},
		token:    true,
		priority: deployName,
	}
	switch overlay {
	case "kubelet-less":
		n.mounts[kubeconfigDir] = corev1.VolumeMount{ReadOnly: true}
		n.token = false // it has a credential of the node's
	case "observe":
		n = needs{
			mounts: map[string]corev1.VolumeMount{kubeletPods: {ReadOnly: true, MountPropagation: ptr.To(corev1.MountPropagationHostToContainer)}},
			caps:   []corev1.Capability{"DAC_READ_SEARCH"},
		}
	}
	return n
}

// faults are what a DaemonSet asks for beyond what it needs, or lacks.
func faults(ds *appsv1.DaemonSet, need needs) (faults []string) {
	pod := &ds.Spec.Template.Spec
	check := func(ok bool, fault string) {
		if !ok {
			faults = append(faults, fault)
		}
	}
	check(!pod.HostNetwork && !pod.HostPID && !pod.HostIPC, "a namespace of the host")
	check(pod.HostUsers == nil && !ptr.Deref(pod.ShareProcessNamespace, false), "users or processes shared otherwise than by default")
	check(len(pod.InitContainers) == 0 && len(pod.Containers) == 1, "more than one container")
	check(!ptr.Deref(pod.EnableServiceLinks, true), "an environment full of services")
	check(pod.PriorityClassName == need.priority, "another priority")
	check(slices.Equal(pod.Tolerations, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}), "a taint that it does not tolerate")
	check(pod.NodeSelector["kubernetes.io/os"] == "linux", "nodes that do not run Linux")
	check(ptr.Deref(pod.TerminationGracePeriodSeconds, 0) == 30, "another time to end")
	check(ptr.Deref(pod.AutomountServiceAccountToken, !need.token) == need.token, "a token mounted, or not, against its need")
	sc := ptr.Deref(pod.SecurityContext, corev1.PodSecurityContext{})
	check(ptr.Deref(sc.RunAsUser, -1) == 0 && ptr.Deref(sc.RunAsGroup, -1) == 0, "a user who is not said to be root")
	check(len(sc.SupplementalGroups) == 0 && sc.FSGroup == nil && len(sc.Sysctls) == 0 && sc.SELinuxOptions == nil, "more of the pod's security context")
	check(sc.SeccompProfile != nil && sc.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, "no seccomp profile")
	update := ds.Spec.UpdateStrategy
	check(update.Type == appsv1.RollingUpdateDaemonSetStrategyType && update.RollingUpdate != nil &&
		update.RollingUpdate.MaxSurge.String() == "1" && update.RollingUpdate.MaxUnavailable.String() == "0", "an update that is no surge")
	faults = append(faults, mountFaults(pod, need.mounts)...)
	for i := range pod.Containers {
		faults = append(faults, containerFaults(&pod.Containers[i], need.caps)...)
	}
	return faults
}

// mountFaults: a pod mounts directories of the node, those it may, and nothing else.
func mountFaults(pod *corev1.PodSpec, need map[string]corev1.VolumeMount) (faults []string) {
	found := 0
	for _, volume := range pod.Volumes {
		if volume.HostPath == nil {
			faults = append(faults, "a volume "+volume.Name+" that is no directory of the node")
			continue
		}
		want, may := need[volume.HostPath.Path]
		if !may {
			faults = append(faults, "the node's "+volume.HostPath.Path)
			continue
		}
		found++
		for _, mount := range pod.Containers[0].VolumeMounts {
			if mount.Name == volume.Name && (mount.ReadOnly != want.ReadOnly || !ptr.Equal(mount.MountPropagation, want.MountPropagation) || mount.MountPath != volume.HostPath.Path) {
				faults = append(faults, "another mount of "+volume.HostPath.Path)
			}
		}
	}
	if found != len(need) || len(pod.Containers[0].VolumeMounts) != len(need) {
		faults = append(faults, "other mounts than it may have")
	}
	return faults
}

func containerFaults(c *corev1.Container, need []corev1.Capability) (faults []string) {
	check := func(ok bool, fault string) {
		if !ok {
			faults = append(faults, fault)
		}
	}
	sc := ptr.Deref(c.SecurityContext, corev1.SecurityContext{})
	check(!ptr.Deref(sc.Privileged, true), "privileged")
	check(!ptr.Deref(sc.AllowPrivilegeEscalation, true), "new privileges")
	check(ptr.Deref(sc.ReadOnlyRootFilesystem, false), "a root file system to write to")
	check(sc.RunAsUser == nil && sc.RunAsGroup == nil && sc.SeccompProfile == nil && sc.SELinuxOptions == nil && sc.ProcMount == nil, "more of the container's security context")
	caps := ptr.Deref(sc.Capabilities, corev1.Capabilities{})
	check(slices.Equal(caps.Drop, []corev1.Capability{"ALL"}), "capabilities that are not dropped")
	check(slices.Equal(slices.Sorted(slices.Values(caps.Add)), need), "other capabilities")
	ports := map[string]int32{}
	for _, port := range c.Ports {
		check(port.HostPort == 0 && port.HostIP == "", "a port of the host")
		ports[port.Name] = port.ContainerPort
	}
	check(len(ports) == 2 && ports["metrics"] == 9477 && ports["health"] == 9478, "other ports")
	for path, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		check(probe != nil && probe.HTTPGet != nil && probe.HTTPGet.Path == path && probe.HTTPGet.Port.String() == "health", "no probe of "+path)
	}
	check(slices.Contains(c.Args, "--health-address=:9478"), "probes that reach nobody")
	limits, requests := c.Resources.Limits, c.Resources.Requests
	check(!requests.Cpu().IsZero() && !requests.Memory().IsZero(), "no requests of resources")
	check(limits.Memory().Cmp(*requests.Memory()) > 0, "no limit of memory above what is requested")
	check(limits.Cpu().IsZero(), "a limit of processor time, which would make tokens late")
	check(c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError, "a termination message that nobody writes")
	return faults
}

// TestDaemonSetFaults plants each fault in the DaemonSet of deploy/ and in that of the overlay observe, which have none.
func TestDaemonSetFaults(t *testing.T) {
	testFaults(t, daemonSet(t), needsOf(""))
	observe := overlayDaemonSet(t, "observe")
	testFaults(t, observe, needsOf("observe"))
	for name, plant := range map[string]func(*corev1.VolumeMount){
		"to write to":             func(m *corev1.VolumeMount) { m.ReadOnly = false },
		"blind for what is later": func(m *corev1.VolumeMount) { m.MountPropagation = nil },
	} {
		planted := observe.DeepCopy()
		plant(&planted.Spec.Template.Spec.Containers[0].VolumeMounts[0])
		if got := faults(planted, needsOf("observe")); !slices.Equal(got, []string{"another mount of " + kubeletPods}) {
			t.Errorf("planted: a mount %s; found: %q", name, got)
		}
	}
}

func testFaults(t *testing.T, ds *appsv1.DaemonSet, need needs) {
	t.Helper()
	if got := faults(ds, need); len(got) != 0 {
		t.Errorf("faults of the DaemonSet: %q", got)
	}
	try := func(want string, plant func(*appsv1.DaemonSet)) {
		planted := ds.DeepCopy()
		plant(planted)
		got := faults(planted, need)
		if !slices.ContainsFunc(got, func(fault string) bool { return strings.HasPrefix(fault, want) }) {
			t.Errorf("planted: %s; found: %q", want, got)
		}
	}
	try("an update", func(ds *appsv1.DaemonSet) { ds.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.IntVal = 1 })
	for want, plant := range podPlants {
		try(want, func(ds *appsv1.DaemonSet) { plant(&ds.Spec.Template.Spec) })
	}
	for want, plant := range containerPlants {
		try(want, func(ds *appsv1.DaemonSet) { plant(&ds.Spec.Template.Spec.Containers[0]) })
	}
}

// podPlants are faults of a pod, by how what is found begins.
var podPlants = map[string]func(*corev1.PodSpec){
	"a namespace of the host":     func(p *corev1.PodSpec) { p.HostPID = true },
	"more than one container":     func(p *corev1.PodSpec) { p.InitContainers = p.Containers },
	"users or processes shared":   func(p *corev1.PodSpec) { p.HostUsers = ptr.To(true) },
	"an environment":              func(p *corev1.PodSpec) { p.EnableServiceLinks = nil },
	"another priority":            func(p *corev1.PodSpec) { p.PriorityClassName += "-other" },
	"a taint":                     func(p *corev1.PodSpec) { p.Tolerations[0].Key = "one" },
	"nodes that do not run Linux": func(p *corev1.PodSpec) { p.NodeSelector = nil },
	"another time to end":         func(p *corev1.PodSpec) { p.TerminationGracePeriodSeconds = nil },
	"a token mounted":             func(p *corev1.PodSpec) { p.AutomountServiceAccountToken = nil },
	"a user who":                  func(p *corev1.PodSpec) { p.SecurityContext.RunAsUser = nil },
	"more of the pod's":           func(p *corev1.PodSpec) { p.SecurityContext.SupplementalGroups = []int64{6} },
	"no seccomp profile":          func(p *corev1.PodSpec) { p.SecurityContext.SeccompProfile.Type = corev1.SeccompProfileTypeUnconfined },
	"a volume extra":              func(p *corev1.PodSpec) { p.Volumes = append(p.Volumes, corev1.Volume{Name: "extra"}) },
	"the node's /":                func(p *corev1.PodSpec) { p.Volumes[0].HostPath.Path = "/" },
}

// containerPlants are the same of its container.
var containerPlants = map[string]func(*corev1.Container){
	"another mount": func(c *corev1.Container) {
		c.VolumeMounts[0].MountPropagation = ptr.To(corev1.MountPropagationBidirectional)
	},
	"other mounts":            func(c *corev1.Container) { c.VolumeMounts = nil },
	"privileged":              func(c *corev1.Container) { c.SecurityContext.Privileged = nil },
	"new privileges":          func(c *corev1.Container) { c.SecurityContext.AllowPrivilegeEscalation = nil },
	"a root file system":      func(c *corev1.Container) { c.SecurityContext.ReadOnlyRootFilesystem = nil },
	"more of the container's": func(c *corev1.Container) { c.SecurityContext.ProcMount = ptr.To(corev1.UnmaskedProcMount) },
	"capabilities that":       func(c *corev1.Container) { c.SecurityContext.Capabilities.Drop = nil },
	"other capabilities": func(c *corev1.Container) {
		c.SecurityContext.Capabilities.Add = append(c.SecurityContext.Capabilities.Add, "SYS_ADMIN")
	},
	"a port of the host":    func(c *corev1.Container) { c.Ports[0].HostPort = 9477 },
	"other ports":           func(c *corev1.Container) { c.Ports = c.Ports[:1] },
	"no probe of /healthz":  func(c *corev1.Container) { c.LivenessProbe = nil },
	"no probe of /readyz":   func(c *corev1.Container) { c.ReadinessProbe.HTTPGet.Path = "/" },
	"probes that reach":     func(c *corev1.Container) { c.Args = c.Args[:1] },
	"no requests":           func(c *corev1.Container) { delete(c.Resources.Requests, corev1.ResourceCPU) },
	"no limit of memory":    func(c *corev1.Container) { c.Resources.Limits = nil },
	"a limit of processor":  func(c *corev1.Container) { c.Resources.Limits[corev1.ResourceCPU] = resource.MustParse("1") },
	"a termination message": func(c *corev1.Container) { c.TerminationMessagePolicy = "" },
}
