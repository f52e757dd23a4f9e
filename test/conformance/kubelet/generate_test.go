package kubelet

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/projector"
)

// dice decide everything about a generated pod, always the same way for the same seed.
type dice struct{ *rand.Rand }

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 0))} }

// chance is true in so many of a hundred cases.
func (d dice) chance(percent float64) bool { return d.Float64()*100 < percent }

func pick[T any](d dice, from ...T) T { return from[d.IntN(len(from))] }

// maybe is a pointer to one of them, or nil in the other cases.
func maybe[T any](d dice, percent float64, from ...T) *T {
	if !d.chance(percent) {
		return nil
	}
	return new(pick(d, from...))
}

// ids are the users and groups that files may be given to. An ordinary user may give them to itself alone.
func ids() (users, groups []int64) {
	if os.Geteuid() != 0 {
		return []int64{int64(os.Geteuid())}, []int64{int64(os.Getegid())}
	}
	return []int64{0, 1000, 1001, 65534}, []int64{0, 2000, 65534}
}

// generate makes a pod, and the objects that it needs: most of them.
func generate(seed uint64) *world {
	d := newDice(seed)
	w := &world{
		pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: pick(d, "default", "kube-system"), Name: fmt.Sprintf("pod-%d", seed), UID: types.UID(fmt.Sprintf("uid-%d", seed)),
			Labels: d.labels(), Annotations: d.labels(),
		}},
		objects: map[projector.ObjectRef]map[string][]byte{},
	}
	for n := range 2 {
		for _, kind := range []string{projector.KindConfigMap, projector.KindSecret} {
			if d.chance(80) {
				w.objects[w.ref(kind, objectName(n))] = d.data()
			}
		}
	}
	w.bundles = d.bundles()
	d.containers(&w.pod.Spec)
	w.pod.Spec.NodeName, w.pod.Spec.ServiceAccountName = "node", pick(d, "default", "builder")
	for n := range 1 + d.IntN(3) {
		w.pod.Spec.Volumes = append(w.pod.Spec.Volumes, corev1.Volume{
			Name: fmt.Sprintf("volume-%d", n), VolumeSource: corev1.VolumeSource{Projected: d.volume(w)},
		})
	}
	w.pod.Spec.Volumes = append(w.pod.Spec.Volumes, scratch)
	for _, mounts := range mountsOf(&w.pod.Spec) {
		*mounts = d.mounts(w.pod.Spec.Volumes)
	}
	return w
}

func objectName(n int) string { return fmt.Sprintf("object-%d", n) }

// labels serve as annotations, too: their values are not checked by anybody here.
func (d dice) labels() map[string]string {
	if d.chance(10) {
		return nil
	}
	m := map[string]string{}
	for range d.IntN(4) {
		m[pick(d, "app", "a.b/c", "MixedCase", "x_y-z")] = pick(d, "", "plain", "två ord", `"quoted" \and\ 'more'`, "two\nlines\t\x01", "日本\u2028", "a=b", "\U0001F511")
	}
	return m
}

// data is what a configMap or secret holds.
func (d dice) data() map[string][]byte {
	m := map[string][]byte{}
	for range d.IntN(6) {
		m[d.key()] = d.value()
	}
	return m
}

func (d dice) key() string {
	if d.chance(3) {
		return "dir" // which paths have as a directory
	}
	return pick(d, "k1", "k2", "k3", "plain", "ca.crt", "token", ".hidden", "A_b-c.d", strings.Repeat("k", 253))
}

func (d dice) value() []byte {
	switch d.IntN(6) {
	case 0:
		return []byte{}
	case 1:
		return []byte{0xff, 0, byte(d.Uint32())}
	case 2:
		return []byte(strings.Repeat("long ", 1+d.IntN(5000)))
	}
	return fmt.Appendf(nil, "value %d\n", d.IntN(1000))
}

// path is where a source is projected to: mostly to a few, so that they meet.
func (d dice) path() string {
	switch {
	case d.chance(1.5):
		return pick(d, "dir", "dir/a/below", "dir/deep/er") // in conflict with others
	case d.chance(3):
		return pick(d, "./plain", "plain/", ".//plain", "dir//a", "dir/./b") // of other paths
	case d.chance(0.7):
		return pick(d, "./..data", "./..x", ".//..2000_01_01_00_00_00.000000000")
	case d.chance(0.7):
		return pick(d, "", ".", "/absolute", "..", "..data", "../up", "dir/../up", "...", strings.Repeat("n", 256))
	case d.chance(3):
		return pick(d, "dir/..a", "dir/...", strings.Repeat("n", 255), "with space", "ünï/cödé", "-", "dir/"+strings.Repeat("d/", 20)+"f")
	}
	return pick(d, "token", "ca.crt", "k1", "k2", "plain", ".hidden", "dir/a", "dir/b", "dir/deep/er/f", "other/a", fmt.Sprintf("file-%d", d.IntN(50)))
}

// mode is of a file that its owner may read: of one that it may not, an ordinary kubelet could not compare the content.
func (d dice) mode() int32 {
	mode := pick(d, 0o644, 0o644, 0o640, 0o600, 0o400, 0o444, 0o755, 0o777, 0, int32(d.IntN(0o1000)))
	if os.Geteuid() != 0 {
		mode |= 0o400
	}
	return mode
}

func (d dice) optionalMode(percent float64) *int32 { return maybe(d, percent, d.mode()) }

// user is one for the alpha fields that name the owner of a file.
func (d dice) user(percent float64) *int64 {
	users, _ := ids()
	return maybe(d, percent, users...)
}
