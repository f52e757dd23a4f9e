package cases

import (
	"regexp"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const apiMountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// tryPod creates the usual pod after an edit.
func (w *World) tryPod(edit func(*corev1.Pod)) (*corev1.Pod, error) {
	pod := w.newPod("web", "nowhere")
	edit(pod)
	return w.Client.CoreV1().Pods(w.NS).Create(w.Ctx, pod, metav1.CreateOptions{})
}

func (w *World) mustPod(edit func(*corev1.Pod)) *corev1.Pod {
	pod, err := w.tryPod(edit)
	w.must(err)
	return pod
}

func forbiddenPod(message string) answer {
	return answer{403, metav1.StatusReasonForbidden, `pods "web" is forbidden: ` + message}
}

// quietAccount is an account that wants no volume.
func (w *World) quietAccount() string {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "quiet"}, AutomountServiceAccountToken: new(false)}
	_, err := w.Client.CoreV1().ServiceAccounts(w.NS).Create(w.Ctx, account, metav1.CreateOptions{})
	w.must(err)
	return account.Name
}

func admission() []Case {
	return append(injection(), []Case{
		{Group: accountsGroup, Name: "a pod without an account gets default, under both names", Run: func(w *World) {
			pod := w.mustPod(func(*corev1.Pod) {})
			w.wantEqual("account", []string{pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount}, []string{"default", "default"})
		}},
		{Group: accountsGroup, Name: "the deprecated name of an account counts", Run: func(w *World) {
			w.createAccount("mine")
			pod := w.mustPod(func(p *corev1.Pod) { p.Spec.DeprecatedServiceAccount = "mine" })
			w.wantEqual("account", []string{pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount}, []string{"mine", "mine"})
		}},
		{Group: accountsGroup, Name: "the name of an account overrules the deprecated one", Run: func(w *World) {
			w.createAccount("mine")
			pod := w.mustPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Spec.DeprecatedServiceAccount = "mine", "other" })
			w.wantEqual("account", []string{pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount}, []string{"mine", "mine"})
		}},
		{Group: accountsGroup, Name: "a pod of an account that does not exist: 403", Run: func(w *World) {
			_, err := w.tryPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "mine" })
			w.wantRefusal(err, forbiddenPod(`error looking up service account `+w.NS+`/mine: serviceaccount "mine" not found`))
		}},
		{Group: accountsGroup, Name: "a pod with generateName of an account that does not exist: 403 with what was generated from", Run: func(w *World) {
			_, err := w.tryPod(func(p *corev1.Pod) { p.Name, p.GenerateName, p.Spec.ServiceAccountName = "", "web-", "mine" })
			w.wantRefusal(err, answer{403, metav1.StatusReasonForbidden, `pods "web-" is forbidden: error looking up service account ` + w.NS + `/mine: serviceaccount "mine" not found`})
		}},
		{Group: accountsGroup, Name: "a pod without imagePullSecrets gets those of its account", Run: func(w *World) {
			w.accountWithPullSecret()
			pod := w.mustPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "pulling" })
			w.wantEqual("imagePullSecrets", pod.Spec.ImagePullSecrets, []corev1.LocalObjectReference{{Name: "theirs"}})
		}},
		{Group: accountsGroup, Name: "a pod with imagePullSecrets keeps them alone", Run: func(w *World) {
			w.accountWithPullSecret()
			own := []corev1.LocalObjectReference{{Name: "own"}}
			pod := w.mustPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Spec.ImagePullSecrets = "pulling", own })
			w.wantEqual("imagePullSecrets", pod.Spec.ImagePullSecrets, own)
		}},
	}...)
}

func (w *World) accountWithPullSecret() {
	_, err := w.Client.CoreV1().ServiceAccounts(w.NS).Create(w.Ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Name: "pulling"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "theirs"}},
	}, metav1.CreateOptions{})
	w.must(err)
}

// injection: when the volume of the API is put into a pod.
func injection() []Case {
	own := []corev1.VolumeMount{{Name: "own", MountPath: apiMountPath}}
	emptyDir := corev1.Volume{Name: "own", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	cases := []Case{
		{Group: accountsGroup, Name: "the injected volume: token of 3607 s for no audience, kube-root-ca.crt, namespace; read-only in init and other containers", Run: func(w *World) {
			pod := w.mustPod(func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "none.invalid/app"}}
			})
			wantInjected(w, pod, 0)
		}},
		{Group: accountsGroup, Name: "the injected volume comes last, after the pod's own", Run: func(w *World) {
			pod := w.mustPod(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{emptyDir} })
			w.wantEqual("first volume", pod.Spec.Volumes[0].Name, "own")
			wantInjected(w, pod, 1)
		}},
		{Group: accountsGroup, Name: "a container that mounts something else there keeps that, and the others get the volume", Run: func(w *World) {
			pod := w.mustPod(func(p *corev1.Pod) {
				p.Spec.Volumes = []corev1.Volume{emptyDir}
				p.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "none.invalid/app", VolumeMounts: own}}
			})
			w.wantEqual("mounts of the first", pod.Spec.InitContainers[0].VolumeMounts, own)
			pod.Spec.InitContainers = nil
			wantInjected(w, pod, 1)
		}},
		{Group: accountsGroup, Name: "a volume whose name begins with kube-api-access- is taken for the injected one", Run: func(w *World) {
			mine := emptyDir
			mine.Name = "kube-api-access-mine"
			pod := w.mustPod(func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{mine} })
			w.wantEqual("volumes", pod.Spec.Volumes, []corev1.Volume{mine})
			w.wantEqual("mounts", pod.Spec.Containers[0].VolumeMounts, []corev1.VolumeMount{{Name: mine.Name, ReadOnly: true, MountPath: apiMountPath}})
		}},
	}
	for _, c := range []struct {
		name string
		edit func(*corev1.Pod)
		want int // volumes
	}{
		{"no volume for a pod that says so", func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = new(false) }, 0},
		{"no volume for a pod whose account says so", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "quiet" }, 0},
		{"a volume for a pod that says so, whatever its account says", func(p *corev1.Pod) {
			p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = "quiet", new(true)
		}, 1},
		{"no volume for a pod whose containers all mount something else there", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{emptyDir}
			p.Spec.Containers[0].VolumeMounts = own
		}, 1},
	} {
		cases = append(cases, Case{Group: accountsGroup, Name: c.name, Run: func(w *World) {
			w.quietAccount()
			w.wantEqual("volumes", len(w.mustPod(c.edit).Spec.Volumes), c.want)
		}})
	}
	return cases
}

// wantInjected checks the volume at an index, and the mounts of all containers.
func wantInjected(w *World, pod *corev1.Pod, index int) {
	if len(pod.Spec.Volumes) != index+1 {
		w.Fatalf("the pod has %d volumes", len(pod.Spec.Volumes))
	}
	volume := pod.Spec.Volumes[index]
	if !regexp.MustCompile(`^kube-api-access-[a-z0-9]{5}$`).MatchString(volume.Name) {
		w.Errorf("the volume is called %q", volume.Name)
	}
	w.wantEqual("volume", volume.VolumeSource, corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: new(int32(0o644)),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: new(int64(3607))}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCA}, Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
			}}},
		},
	}})
	mounts := []corev1.VolumeMount{{Name: volume.Name, ReadOnly: true, MountPath: apiMountPath}}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		w.wantEqual("mounts of "+c.Name, c.VolumeMounts, mounts)
	}
}
