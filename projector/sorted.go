package projector

import (
	"slices"
	"strings"
)

// podVolumes are the volumes of a pod, sorted by name. Most pods have one or two, for which a map is large.
type podVolumes []*volume

func (v *volume) name() string { return v.key.Volume }

// find returns the volume of that name; nil if there is none.
func (l podVolumes) find(name string) *volume {
	v, _ := findSorted(l, name, (*volume).name)
	return v
}

// with returns the volumes and one more, of a name that none of them has.
func (l podVolumes) with(v *volume) podVolumes {
	at, _ := searchSorted(l, v.name(), (*volume).name)
	return slices.Insert(l, at, v)
}

// without returns the volumes but the one of that name.
func (l podVolumes) without(name string) podVolumes { return withoutSorted(l, name, (*volume).name) }

// versionFiles are the files of a version, sorted by path: a map would take four times the memory, for each volume.
type versionFiles []published

func (p published) name() string { return p.path }

// find returns the file of a path, the zero value if there is none.
func (f versionFiles) find(path string) (p published, ok bool) {
	return findSorted(f, path, published.name)
}

// without returns the files but that of a path.
func (f versionFiles) without(path string) versionFiles {
	return withoutSorted(f, path, published.name)
}

// searchSorted says where in a list that is sorted by name the element of that name is, or would be.
func searchSorted[T any](l []T, name string, of func(T) string) (at int, ok bool) {
	return slices.BinarySearchFunc(l, name, func(e T, name string) int { return strings.Compare(of(e), name) })
}

func findSorted[T any](l []T, name string, of func(T) string) (e T, ok bool) {
	at, ok := searchSorted(l, name, of)
	if ok {
		e = l[at]
	}
	return e, ok
}

func withoutSorted[L ~[]T, T any](l L, name string, of func(T) string) L {
	if at, ok := searchSorted(l, name, of); ok {
		return slices.Delete(l, at, at+1)
	}
	return l
}
