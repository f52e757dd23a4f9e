//go:build churn

package churn

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// life is one pod: made, changed in the middle, gone at the end.
type life struct {
	n     *node
	i     int // which one, from 0
	round int // which one of its kind
	pod   *corev1.Pod
	own   []fakeapi.Object // objects that come and go with it
	kind  *kind
	over  bool // nothing is wanted on disk any more
}

// kind is what a pod is, and what happens to it.
type kind struct {
	name   string
	make   func(l *life, pod *corev1.Pod)
	middle func(l *life) // nil: nothing
	broken bool          // it never has all that it wants
}

// kinds come in turn. The one that never has its files is seldom: client-go's recorder remembers every pod that it has
// told of, up to a bound of 4,096.
var kinds = []*kind{
	{name: "audiences", make: (*life).audiences},
	{name: "short", make: (*life).short},
	{name: "settings", make: (*life).settings, middle: (*life).changeOwn},
	{name: "shared", make: (*life).shared, middle: (*life).changeShared},
	{name: "done", make: (*life).audiences, middle: (*life).complete},
	{name: "graceful", make: (*life).audiences, middle: (*life).terminate},
	{name: "again", make: (*life).again},
	{name: "employee", make: (*life).employ},
	{name: "anew", make: (*life).anew, middle: (*life).makeAccountAnew},
	{name: "optional", make: (*life).optional},
}

var broken = &kind{name: "broken", make: (*life).lack, broken: true}

func kindOf(i int) *kind {
	if i%alive == alive-1 {
		return broken
	}
	return kinds[i%len(kinds)]
}

func (n *node) create(i int) *life {
	n.t.Helper()
	l := &life{n: n, i: i, round: i / len(kinds), kind: kindOf(i)}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s-%d", l.kind.name, i), Labels: map[string]string{"life": fmt.Sprint(i)}},
		Spec: corev1.PodSpec{
			NodeName: n.name, TerminationGracePeriodSeconds: new(int64(30)),
			Containers: []corev1.Container{{Name: "app", Image: "none.invalid/app"}},
		},
	}
	l.kind.make(l, pod)
	for _, o := range l.own {
		n.put(o)
	}
	var err error
	l.pod, err = fakeapi.Create(n.api, pod)
	n.must(err)
	return l
}

func (l *life) change() {
	l.n.t.Helper()
	if l.kind.middle != nil {
		l.kind.middle(l)
	}
}

// end deletes the pod at once, as its kubelet does when the containers have ended, and what was its own.
func (l *life) end() {
	l.n.t.Helper()
	for _, o := range append([]fakeapi.Object{l.pod}, l.own...) {
		l.n.must(l.n.api.Delete(o, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	}
	l.over = true
}

func token(audience, path string) corev1.VolumeProjection {
	return corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience, Path: path}}
}

func project(pod *corev1.Pod, sources ...corev1.VolumeProjection) {
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: sources},
	}})
}

func (l *life) audiences(pod *corev1.Pod) {
	project(pod, token("vault", "vault"), token("sts.invalid", "aws"), token("", "api"))
}

// short tokens are made so by the server: see newNode.
func (l *life) short(pod *corev1.Pod) {
	pod.Spec.ServiceAccountName = shortLived
	project(pod, token("vault", "vault"))
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"key": value}}
}

func configMapSource(name string, optional bool) corev1.VolumeProjection {
	return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: name}, Optional: &optional,
		Items: []corev1.KeyToPath{{Key: "key", Path: "config/" + name}},
	}}
}

func (l *life) settings(pod *corev1.Pod) {
	l.own = append(l.own, configMap(pod.Name, "first"))
	project(pod, token("vault", "vault"), configMapSource(pod.Name, false))
}

func (l *life) changeOwn() {
	_, err := fakeapi.Update(l.n.api, configMap(l.pod.Name, "second"))
	l.n.must(err)
}

func (l *life) shared(pod *corev1.Pod) {
	project(pod, token("vault", "vault"), configMapSource(common, false),
		corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: common}}},
		corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
		}}})
}

func (l *life) changeShared() {
	_, err := fakeapi.Update(l.n.api, configMap(common, fmt.Sprint(l.i)))
	l.n.must(err)
}

func (l *life) complete() {
	pod := l.pod.DeepCopy()
	pod.ResourceVersion, pod.Status.Phase = "", corev1.PodSucceeded
	_, err := fakeapi.UpdateStatus(l.n.api, pod)
	l.n.must(err)
	l.over = true
}

func (l *life) terminate() { l.n.must(l.n.api.Delete(l.pod, metav1.DeleteOptions{})) }

// again has the name of the one before it.
func (l *life) again(pod *corev1.Pod) {
	pod.Name = fmt.Sprintf("again-%d", l.i%alive)
	project(pod, token("vault", "vault"))
}

func account(name string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func (l *life) employ(pod *corev1.Pod) {
	pod.Spec.ServiceAccountName = pod.Name
	l.own = append(l.own, account(pod.Name))
	project(pod, token("vault", "vault"))
}

func (l *life) anew(pod *corev1.Pod) {
	pod.Spec.ServiceAccountName = accounts[l.round%len(accounts)]
	project(pod, token("vault", "vault"))
}

// makeAccountAnew does so for every tenth of these pods.
func (l *life) makeAccountAnew() {
	if l.round%10 > 0 {
		return
	}
	a := account(l.pod.Spec.ServiceAccountName)
	l.n.must(l.n.api.Delete(a, metav1.DeleteOptions{}))
	l.n.put(a)
}

func (l *life) optional(pod *corev1.Pod) {
	project(pod, token("vault", "vault"), configMapSource("missing-"+pod.Name, true))
}

// lack waits for a configMap that nobody makes, beside the injected volume, which is in order.
func (l *life) lack(pod *corev1.Pod) {
	project(pod, token("vault", "vault"), configMapSource("missing-"+pod.Name, false))
}

func (l *life) dir() string {
	return filepath.Join(l.n.root, "pods", string(l.pod.UID), "volumes", "kubernetes.io~projected")
}

// fault says what is wrong with a pod's tokens, "" for nothing.
func (l *life) fault() string {
	for _, v := range l.pod.Spec.Volumes {
		for _, source := range v.Projected.Sources {
			if source.ServiceAccountToken == nil {
				continue
			}
			raw, err := os.ReadFile(filepath.Join(l.dir(), v.Name, source.ServiceAccountToken.Path))
			if err != nil {
				return err.Error()
			}
			switch c, err := projector.ParseClaims(raw); {
			case err != nil:
				return err.Error()
			case c.PodUID != l.pod.UID, c.Lifetime.Expired(time.Now()):
				return fmt.Sprintf("%s: expires %v, of pod %s", source.ServiceAccountToken.Path, c.Lifetime.Expires, c.PodUID)
			}
		}
	}
	return ""
}
