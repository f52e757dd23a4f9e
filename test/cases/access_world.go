package cases

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// attempt is one request of a node, and what it is answered with: a zero want is success.
type attempt struct {
	name string
	// request is a method, a space and a URI.
	request, body string
	want          answer
	// as is who sends it; nil is the node.
	as func(*nodeWorld) *rest.Config
	// differs and realOnly are the case's.
	differs, realOnly string
}

// attempts makes a case of each.
func attempts(list []attempt) []Case {
	out := make([]Case, len(list))
	for i, a := range list {
		out[i] = Case{
			Group: accessGroup, Name: a.name, Differs: a.differs, RealOnly: a.realOnly,
			Run: func(w *World) { newNodeWorld(w).try(a) },
		}
	}
	return out
}

// nodeWorld is a World with two nodes, whose pods the server's authorizer knows.
type nodeWorld struct {
	*World
	node, other *corev1.Node
	here, over  *corev1.Pod // on node
	there, twin *corev1.Pod // on other; twin has the account of here
	config      *rest.Config
}

func newNodeWorld(w *World) *nodeWorld {
	n := &nodeWorld{World: w, node: w.createNode("node"), other: w.createNode("other")}
	for _, account := range []string{"app", "over", "elsewhere"} {
		w.createAccount(account)
	}
	_, err := w.Client.CoreV1().Secrets(w.NS).Create(w.Ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "projected"}}, metav1.CreateOptions{})
	w.must(err)
	_, err = w.Client.CoreV1().Events(w.NS).Create(w.Ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "old"}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: w.NS, Name: "here"},
	}, metav1.CreateOptions{})
	w.must(err)
	n.createPods()
	n.config, err = w.User("system:node:"+n.node.Name, "system:nodes")
	w.must(err)
	other, err := w.User("system:node:"+n.other.Name, "system:nodes")
	w.must(err)
	n.settle(n.config, "app", "over")
	n.settle(other, "elsewhere", "app")
	return n
}

// createPods makes mirror first: what is known of the others is then known of it.
func (n *nodeWorld) createPods() {
	mirror := n.newPod("mirror", n.node.Name)
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "mirror"}
	mirror.Spec.Volumes = []corev1.Volume{{Name: "configmap", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "mirror"},
	}}}}
	n.createPod(mirror)
	n.createPod(n.newPod("nowhere", ""))
	n.over = n.createPod(n.podOf("over", "over", n.node))
	n.over.Status.Phase = corev1.PodSucceeded
	_, err := n.Client.CoreV1().Pods(n.NS).UpdateStatus(n.Ctx, n.over, metav1.UpdateOptions{})
	n.must(err)
	n.here = n.createPod(n.withReferences(n.podOf("here", "app", n.node)))
	n.twin = n.createPod(n.podOf("twin", "app", n.other))
	there := n.podOf("there", "elsewhere", n.other)
	there.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "elsewhere"}}
	n.there = n.createPod(there)
}

// podOf has a volume with a token for vault, and none for the API.
func (n *nodeWorld) podOf(name, account string, node *corev1.Node) *corev1.Pod {
	pod := n.newPod(name, node.Name)
	automount := false
	pod.Spec.ServiceAccountName, pod.Spec.AutomountServiceAccountToken = account, &automount
	pod.Spec.Volumes = []corev1.Volume{{Name: "vault", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: "token"}}},
	}}}}
	return pod
}

// withReferences names a Secret or a ConfigMap wherever a pod can, and takes the injected volume as well.
func (n *nodeWorld) withReferences(pod *corev1.Pod) *corev1.Pod {
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	pod.Spec.AutomountServiceAccountToken = nil
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{ref("pull")}
	vault := pod.Spec.Volumes[0].Projected
	vault.Sources = append(vault.Sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: ref("projected")}})
	pod.Spec.Volumes = append(pod.Spec.Volumes,
		corev1.Volume{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "volume"}}},
		corev1.Volume{Name: "configmap", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("volume")}}})
	pod.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "none.invalid/init", EnvFrom: []corev1.EnvFromSource{
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("init")}},
	}}}
	c := &pod.Spec.Containers[0]
	c.EnvFrom = []corev1.EnvFromSource{
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref("env-from")}},
		{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("env-from")}},
	}
	c.Env = []corev1.EnvVar{
		{Name: "A", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("env"), Key: "k"}}},
		{Name: "B", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: ref("env"), Key: "k"}}},
	}
	return pod
}

// settle waits until a node may read the accounts of its pods: what the real server grants, it learns in a moment.
func (n *nodeWorld) settle(node *rest.Config, accounts ...string) {
	client, err := kubernetes.NewForConfig(node)
	n.must(err)
	for _, account := range accounts {
		n.eventually(func() error {
			_, err := client.CoreV1().ServiceAccounts(n.NS).Get(n.Ctx, account, metav1.GetOptions{})
			return err
		})
	}
}

// fill puts in the names that s has in braces.
func (n *nodeWorld) fill(s string) string {
	return strings.NewReplacer("{ns}", n.NS, "{node}", n.node.Name, "{other}", n.other.Name, "{uid}", string(n.here.UID)).Replace(s)
}

func (n *nodeWorld) try(a attempt) {
	config := n.config
	if a.as != nil {
		config = a.as(n)
	}
	err := n.sendAs(config, n.fill(a.request), n.fill(a.body))
	if a.want == (answer{}) {
		n.must(err)
		return
	}
	a.want.Message = n.fill(a.want.Message)
	n.wantRefusal(err, a.want)
}

// sendAs makes a request in JSON. Its error is what the server refused it with.
func (w *World) sendAs(config *rest.Config, request, body string) error {
	config = rest.CopyConfig(config)
	config.ContentType = "application/json"
	client, err := kubernetes.NewForConfig(config)
	w.must(err)
	method, uri, _ := strings.Cut(request, " ")
	r := client.CoreV1().RESTClient().Verb(method).RequestURI(uri)
	if body != "" {
		r.Body([]byte(body))
	}
	if method == "PATCH" {
		r.SetHeader("Content-Type", string(types.MergePatchType))
	}
	return r.Do(w.Ctx).Error()
}
