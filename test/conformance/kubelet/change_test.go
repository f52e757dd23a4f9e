package kubelet

import (
	"maps"
	"slices"
	"strings"

	"github.com/token-projector/token-projector/projector"
)

// change is something that happens to a pod's world between two projections.
type change struct {
	name   string
	weight int // how often, compared with the others
	apply  func(dice, *world)
}

var changes = []change{
	{"nothing", 1, func(dice, *world) {}},
	{"labels change", 1, func(d dice, w *world) { w.pod.Labels, w.pod.Annotations = d.labels(), d.labels() }},
	{"ephemeral container", 8, func(d dice, w *world) {
		d.addEphemeral(&w.pod.Spec)
		all := mountsOf(&w.pod.Spec)
		*all[len(all)-1] = d.mounts(w.pod.Spec.Volumes)
	}},
	{"value changes", 2, func(d dice, w *world) {
		d.alter(w, func(data map[string][]byte) {
			for _, key := range slices.Sorted(maps.Keys(data)) {
				if d.chance(50) {
					data[key] = d.value()
				}
			}
		})
	}},
	{"key appears", 2, func(d dice, w *world) {
		d.alter(w, func(data map[string][]byte) { data[d.key()] = d.value() })
	}},
	{"key disappears", 4, func(d dice, w *world) {
		d.alter(w, func(data map[string][]byte) { delete(data, d.knownKey(data)) })
	}},
	{"object disappears", 4, func(d dice, w *world) { delete(w.objects, d.used(w)) }},
	{"object appears", 2, func(d dice, w *world) {
		if ref := d.used(w); w.objects[ref] == nil {
			w.objects[ref] = d.data()
		}
	}},
	{"trust bundle changes", 1, func(d dice, w *world) {
		b := d.newBundle(bundleName(d.IntN(4)))
		w.bundles[b.Name] = b
	}},
	{"trust bundle disappears", 1, func(d dice, w *world) { delete(w.bundles, bundleName(d.IntN(4))) }},
}

// change makes the world that follows on w, and says what happened in between.
func (d dice) change(w *world) (after *world, what string) {
	after = w.clone()
	var lots []change
	for _, c := range changes {
		lots = append(lots, slices.Repeat([]change{c}, c.weight)...)
	}
	happens := pick(d, lots...)
	happens.apply(d, after)
	if d.chance(40) {
		after.issue++
		return after, happens.name + ", and tokens are renewed"
	}
	return after, happens.name
}

// alter changes what an object holds that is used and exists.
func (d dice) alter(w *world, f func(map[string][]byte)) {
	for range 10 {
		if data := w.objects[d.used(w)]; data != nil {
			f(data)
			return
		}
	}
}

// used is a configMap or secret that the pod uses, be it there or not.
func (d dice) used(w *world) projector.ObjectRef {
	used := map[projector.ObjectRef]bool{}
	for _, v := range w.volumes() {
		for _, s := range v.Sources {
			switch {
			case s.ConfigMap != nil:
				used[w.ref(projector.KindConfigMap, s.ConfigMap.Name)] = true
			case s.Secret != nil:
				used[w.ref(projector.KindSecret, s.Secret.Name)] = true
			}
		}
	}
	if len(used) == 0 {
		return projector.ObjectRef{}
	}
	byName := func(a, b projector.ObjectRef) int { return strings.Compare(a.String(), b.String()) }
	return pick(d, slices.SortedFunc(maps.Keys(used), byName)...)
}
