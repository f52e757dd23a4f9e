package kubelet

import (
	"fmt"
	"maps"
	"path/filepath"
)

// comparison is one world, and the one that followed on it, as both sides projected them.
type comparison struct {
	dir           string // for the kubelet's side
	before, after *world
	first, second projection // ours

	met       metDifferences
	published int      // volumes of which something was to be published
	faults    []string // what must not be
	scratch   int
}

// want is what ours is to have made of a volume.
type want struct {
	tree   tree   // nil: nothing is published
	failed string // why the volume is reported; "": it is not
}

// judge has the kubelet project both worlds, and compares.
func (c *comparison) judge() {
	states := [2]map[string]int{{}, {}}
	for name := range c.before.volumes() {
		first, second := c.judgeVolume(name)
		for i, w := range []want{first, second} {
			if w.failed != "" {
				states[i]["failed"]++
			} else {
				states[i]["ready"]++
			}
		}
	}
	for i, p := range []projection{c.first, c.second} {
		if !maps.Equal(states[i], p.states) {
			c.fault("", i, "volumes are reported as %v, want %v", p.states, states[i])
		}
	}
}

func (c *comparison) judgeVolume(name string) (first, second want) {
	k := newKubelet(filepath.Join(c.dir, name))
	v1, err := k.setUp(c.decided(c.before, name), name)
	first = c.wantFirst(name, v1, err)
	c.compare(name, 0, first, c.first.volumes[name])
	after, inTheWay := c.unmounted(name)
	v2, err := k.setUp(after, name)
	if err == nil { // at the next sync it makes a mount's directory again that it removed with a file of that name
		v2, err = k.setUp(after, name)
	}
	if anew, ok := c.removed(after, name, err); ok {
		v2, err = anew, nil
	}
	second = c.wantSecond(name, first, v1, v2, err)
	if inTheWay {
		c.met[mountInTheWay]++
		second.failed = mountInTheWay.name
	}
	c.compare(name, 1, second, c.second.volumes[name])
	c.compareNames(name, first, second)
	return first, second
}

// compareNames wants what has not changed not to be written again.
func (c *comparison) compareNames(name string, first, second want) {
	before, after := c.first.volumes[name], c.second.volumes[name]
	if first.tree == nil || after.tree == nil || len(first.tree.differences(second.tree)) > 0 {
		return
	}
	if before.name != after.name {
		c.fault(name, 1, "written again, although nothing was to be changed")
	}
}

// decided is the world for the kubelet: what it decides by chance is decided.
func (c *comparison) decided(w *world, name string) *world {
	w = w.clone()
	if w.clean(name) {
		c.met[spellingOfAKey]++
	}
	return w
}

// unmounted is the second world without the ephemeral container's mounts that are where the first one has files.
func (c *comparison) unmounted(name string) (w *world, any bool) {
	w = c.decided(c.after, name)
	late := len(w.pod.Spec.EphemeralContainers) - len(c.before.pod.Spec.EphemeralContainers)
	any = w.unmount(name, late, func(first string) bool { return c.first.volumes[name].tree[first].kind == "link" })
	return w, any
}

func (c *comparison) wantFirst(name string, v version, err error) want {
	if rule := refusal(c.before.volumes()[name]); rule != nil {
		c.met[rule]++
		return want{failed: rule.name}
	}
	if err != nil {
		return want{failed: err.Error()}
	}
	return want{tree: c.adapt(v.tree)}
}

func (c *comparison) wantSecond(name string, first want, v1, v2 version, err error) want {
	if rule := refusal(c.after.volumes()[name]); rule != nil {
		return want{failed: rule.name}
	}
	if err == nil {
		return want{tree: c.adapt(c.remoded(name, v1, v2).tree)}
	}
	if first.tree == nil {
		return want{failed: err.Error()}
	}
	c.met[failingSource]++
	return want{tree: c.kept(name, first.tree), failed: err.Error()}
}

// removed is what a kubelet makes of a world whose files alone are in order, where this one has failed for what was there
// before: for a mount's directory.
func (c *comparison) removed(w *world, name string, failed error) (version, bool) {
	if failed == nil {
		return version{}, false
	}
	v, err := c.fresh(w, name)
	if err != nil {
		return version{}, false
	}
	c.met[removedMount]++
	return v, true
}

// remoded is what the kubelet made of the second world; if it did not write because no content had changed, with the
// modes and owners that it would have given.
func (c *comparison) remoded(name string, v1, v2 version) version {
	if v1.name != v2.name {
		return v2
	}
	after, _ := c.unmounted(name)
	anew, err := c.fresh(after, name)
	if err != nil {
		c.fault(name, 1, "harness: the kubelet projects it again, but not anew: %v", err)
		return v2
	}
	if len(c.adapt(anew.tree).differences(c.adapt(v2.tree))) > 0 {
		c.met[modeAlone]++
	}
	return anew
}

// fresh has a kubelet project a volume that it has not seen before.
func (c *comparison) fresh(w *world, name string) (version, error) {
	c.scratch++
	return newKubelet(filepath.Join(c.dir, fmt.Sprint("scratch-", c.scratch))).setUp(w, name)
}

// adapt turns what the kubelet made into what ours is to make.
func (c *comparison) adapt(theirs tree) tree {
	t := maps.Clone(theirs)
	for _, l := range layout {
		before := maps.Clone(t)
		l.adapt(t)
		if !maps.Equal(before, t) {
			c.met[l]++
		}
	}
	return t
}

func (c *comparison) compare(name string, phase int, w want, got version) {
	switch {
	case w.tree == nil && got.tree == nil:
	case w.tree == nil:
		c.fault(name, phase, "published, although it is to be refused: %s", w.failed)
	case got.tree == nil:
		c.fault(name, phase, "not published")
	default:
		c.published++
		for _, difference := range got.tree.differences(w.tree) {
			c.fault(name, phase, "%s", difference)
		}
	}
}

func (c *comparison) fault(volume string, phase int, format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf("%s, %s projection: %s", volume, []string{"first", "second"}[phase], fmt.Sprintf(format, args...)))
}
