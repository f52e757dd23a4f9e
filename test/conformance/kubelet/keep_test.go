package kubelet

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// kept is what ours is to make of the second world while sources of the volume fail: the others are as they are now, and
// what a failing one gave to the first version stays, unless a later one gives it now.
func (c *comparison) kept(name string, first tree) tree {
	before, after := c.decided(c.before, name), c.decided(c.after, name)
	failing := c.failing(after, name)
	absent := append(c.shadowed(after.volumes()[name]), failing...)
	others, err := c.fresh(after.without(name, absent), name)
	if err != nil {
		c.fault(name, 1, "harness: not projected without the sources that fail: %v", err)
	}
	t := c.adapt(others.tree)
	was, is := c.givers(before, name, nil), c.givers(after, name, absent)
	for file, source := range was {
		if now, given := is[file]; slices.Contains(failing, source) && (!given || now < source) {
			t.take(file, first)
		}
	}
	return t
}

// take takes a file of another tree over, with the directories and the link that lead to it.
func (t tree) take(file string, from tree) {
	t[file] = from[file]
	for at := path.Dir(file); at != versionDir; at = path.Dir(at) {
		t[at] = from[at]
	}
	link, _, _ := strings.Cut(strings.TrimPrefix(file, versionDir+"/"), "/")
	t[link] = from[link]
}

// failing are the sources that the kubelet cannot project even alone. If there are none, what objects brought together
// is in conflict: then it is all those that are made of objects.
func (c *comparison) failing(w *world, name string) []int {
	var failing, objects []int
	for i, s := range w.volumes()[name].Sources {
		if _, err := c.fresh(w.only(name, i), name); err != nil {
			failing = append(failing, i)
		}
		if s.ConfigMap != nil || s.Secret != nil || s.ClusterTrustBundle != nil {
			objects = append(objects, i)
		}
	}
	if failing == nil {
		return objects
	}
	return failing
}

// shadowed are the tokens whose file a later source overwrites, or else fails.
func (c *comparison) shadowed(v *corev1.ProjectedVolumeSource) []int {
	var shadowed []int
	for i, s := range v.Sources {
		for _, later := range v.Sources[i+1:] {
			if s.ServiceAccountToken != nil && slices.Contains(surePaths(later), s.ServiceAccountToken.Path) {
				c.met[shadowedToken]++
				shadowed = append(shadowed, i)
				break
			}
		}
	}
	return shadowed
}

// givers says of each file which source gives it: the last one that does.
func (c *comparison) givers(w *world, name string, without []int) map[string]int {
	givers := map[string]int{}
	for i := range w.volumes()[name].Sources {
		if slices.Contains(without, i) {
			continue
		}
		v, err := c.fresh(w.only(name, i), name)
		if err != nil {
			c.fault(name, 1, "harness: source %d alone is not projected: %v", i, err)
		}
		for path, e := range v.tree {
			if e.kind == "file" {
				givers[path] = i
			}
		}
	}
	return givers
}

// only is a world in which the volume has one source alone.
func (w *world) only(volume string, source int) *world {
	c := w.clone()
	v := c.volumes()[volume]
	v.Sources = v.Sources[source : source+1]
	return c
}

// without is a world in which the volume lacks these sources.
func (w *world) without(volume string, sources []int) *world {
	c := w.clone()
	v := c.volumes()[volume]
	v.Sources = nil
	for i, s := range w.volumes()[volume].Sources {
		if !slices.Contains(sources, i) {
			v.Sources = append(v.Sources, s)
		}
	}
	return c
}
