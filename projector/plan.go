package projector

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/token-projector/token-projector/atomicwriter"
)

// retired reports whether the pod's tokens are dead, so that nothing refreshes
// them any more; the files stay until the pod's object is gone. A clock in doubt
// proves no death: if nothing else is asked for, no answer would ever put it right.
func (s *state) retired(p *pod) bool {
	return !p.wish.Retire.IsZero() && !s.doubtful && !s.now.Before(p.wish.Retire)
}

// plan puts a volume where its state says it belongs: into the queues at the
// time of its next mint and of its next disk job, or nowhere.
func (s *state) plan(v *volume, now time.Time) {
	s.mints.Remove(v)
	s.disks.Remove(v)
	if v.busy || v.gone || v.pod.gone || v.wish.Err != nil {
		return
	}
	if at, deadline, ok := v.nextDisk(now); ok {
		s.disks.Set(v, at, deadline)
	}
	if t := s.nextToken(v); t != nil {
		s.mints.Set(v, t.at(), t.deadline(v))
	}
}

// nextToken is the token that wants minting first; nil if none does, but for those
// that are held.
func (s *state) nextToken(v *volume) *token {
	if !v.known || s.retired(v.pod) {
		return nil
	}
	var next *token
	for i := range v.tokens {
		t := &v.tokens[i]
		if !t.shadowed && !t.held && (next == nil || t.at().Before(next.at())) {
			next = t
		}
	}
	return next
}

// at is when the token wants minting, in server time.
func (t *token) at() time.Time {
	if t.dead {
		return t.retryAt
	}
	due := t.due
	if !t.fresh.empty() { // something has kept it from the disk until it is due again itself
		due = t.next.Limit()
	}
	return later(later(due, t.earliest()), t.retryAt)
}

// earliest is when the token may be minted again at the earliest, due or not.
func (t *token) earliest() time.Time {
	if !t.fresh.empty() {
		return t.next.Floor(t.took, false)
	}
	return t.floor
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// deadline ranks tokens that are due together: the one that expires first goes first.
func (t *token) deadline(v *volume) time.Time {
	if t.life.Expires.IsZero() {
		return v.since.Add(pendingGrace)
	}
	return t.life.Expires
}

// nextDisk is when the volume wants a disk job, and how urgently.
func (v *volume) nextDisk(now time.Time) (at, deadline time.Time, ok bool) {
	switch {
	case !v.known, v.dirty:
		at, deadline = now, v.soonest(v.since.Add(pendingGrace))
	case v.whole:
		at, deadline = v.verifyAt, now.Add(time.Hour)
		if len(v.stale) > 0 && v.stale[0].at.Add(staleAge).Before(at) {
			at = v.stale[0].at.Add(staleAge)
		}
		if at = later(at, v.restAt); !v.mounted() {
			at = now
		}
		at = later(at, v.repairedAt.Add(v.pace))
	default:
		return at, deadline, false
	}
	return later(at, v.retryAt), deadline, true
}

// soonest is when the first of the volume's tokens expires; none if it has none.
func (v *volume) soonest(none time.Time) time.Time {
	var first time.Time
	for i := range v.tokens {
		if e := v.tokens[i].life.Expires; !e.IsZero() && (first.IsZero() || e.Before(first)) {
			first = e
		}
	}
	if first.IsZero() {
		return none
	}
	return first
}

// content is what a volume should hold, as far as its sources can say now.
type content struct {
	files   map[string]atomicwriter.File
	from    map[string]int       // which source gave a path: its number, from 1
	tokens  map[string]*token    // of paths that are a token's, and no later source's
	keys    map[string]objectKey // of paths that hold a key's data as it is, and no later source's
	missing *VolumeError         // the first source that cannot be had; nil if none is known
	partial bool                 // some source cannot be had, or not yet

	of     *volume
	source int // that is being evaluated
	owner  func(user *int64) atomicwriter.Owner
}

// objectKey names a part of an object.
type objectKey struct {
	object *object
	key    string
}

// sum is the hash of a file that has its data.
func (c *content) sum(path string) [32]byte {
	if k, ok := c.keys[path]; ok {
		return k.object.sum(k.key)
	}
	return sha256.Sum256(c.files[path].Data)
}

// resolve evaluates the sources in order; a later one overwrites an earlier
// one's path, as with the kubelet. Of a version that is published, what a
// failing source gave stays: its files are kept by their hash.
func (s *state) resolve(v *volume) content {
	c := s.evaluate(v, true)
	switch err := c.validate(); {
	case err == nil:
	case v.whole: // keys that objects brought in conflict: those sources fail, the others do not wait
		c = s.evaluate(v, false)
		c.missing = err
	default:
		c.partial, c.missing = true, err
	}
	return c
}

// evaluate leaves the objects out, as if they failed, if it is told to.
func (s *state) evaluate(v *volume, objects bool) content {
	c := content{
		files: make(map[string]atomicwriter.File), from: make(map[string]int), tokens: make(map[string]*token),
		partial: !objects, of: v,
		owner: func(user *int64) atomicwriter.Owner { return s.owner(v, user) },
	}
	n := 0
	for i := range v.wish.Sources {
		src := &v.wish.Sources[i]
		c.source = src.Index + 1
		switch {
		case src.Token != nil:
			c.addToken(&v.tokens[n])
			n++
		case src.Object != nil && objects:
			c.addObject(src.Object, s.objects[src.Object.Ref])
		case src.Object != nil:
			c.keep(src.Object)
		}
		for _, l := range src.Literal {
			c.add(l.User, atomicwriter.File{Path: l.Path, Data: l.Data, Mode: l.Mode})
		}
	}
	for path := range c.tokens {
		if _, ok := c.files[path]; !ok { // it is neither on disk nor on its way there
			c.partial = true
		}
	}
	if c.partial && v.whole {
		c.keepRest()
	}
	return c
}

// examine brings dirty and the report up to date with the volume's sources.
// The first version needs every source; a later one waits for none.
func (s *state) examine(v *volume, now time.Time) {
	if !v.known || v.wish.Err != nil {
		v.dirty = false
		s.report(v, nil, now)
		return
	}
	c := s.resolve(v)
	for i := range v.tokens {
		t := &v.tokens[i]
		t.shadowed = c.tokens[t.source.Path] != t
	}
	v.dirty = (v.whole || !c.partial) && c.differs(v)
	s.report(v, c.missing, now)
}

// validate refuses paths that only the objects' keys brought together.
func (c *content) validate() *VolumeError {
	if err := atomicwriter.ValidatePaths(slices.Sorted(maps.Keys(c.files))); err != nil {
		return volumeErrorf(ReasonConflict, "%v", err)
	}
	return nil
}

func (c *content) add(user *int64, f atomicwriter.File) {
	f.Owner = new(c.owner(user))
	if g := c.of.wish.Group; g != nil {
		f.Mode = ungrouped(f.Mode, *g, *f.Owner)
	}
	c.put(f)
}

// put has the source that is being evaluated give a file, whatever earlier ones gave.
func (c *content) put(f atomicwriter.File) {
	c.files[f.Path], c.from[f.Path] = f, c.source
	delete(c.tokens, f.Path)
	delete(c.keys, f.Path)
}

// addKey adds a key's data as it is.
func (c *content) addKey(user *int64, f atomicwriter.File, o *object, key string) {
	c.add(user, f)
	if c.keys == nil {
		c.keys = make(map[string]objectKey)
	}
	c.keys[f.Path] = objectKey{o, key}
}

func (c *content) fail(err *VolumeError) {
	c.partial = true
	if c.missing == nil {
		c.missing = err
	}
}

// addToken adds the fresh token, or the one on disk by its hash. Bytes of
// another source that stand in its place are not taken for it.
func (c *content) addToken(t *token) {
	f := atomicwriter.File{Path: t.source.Path, Mode: t.source.Mode}
	old, ok := c.of.files.find(f.Path)
	switch {
	case !t.fresh.empty():
		f.Data = t.fresh.reveal()
		c.add(t.source.User, f)
	case ok && old.sum == t.sum:
		f.Keep = &old.sum
		c.add(t.source.User, f)
	default: // to be minted, unless another source gives this path
		delete(c.files, f.Path)
	}
	c.tokens[f.Path] = t
}

// keep has a failing source give what it gave to the published version.
func (c *content) keep(src *ObjectSource) {
	for _, old := range c.of.files {
		if c.gave(src, old) {
			c.put(old.kept())
		}
	}
}

// gave reports whether the source that is being evaluated gave a published file.
// Of a version from before a restart it is known of what its items name, and
// guessed of what stands in a token's place and is none, for want of another giver.
func (c *content) gave(src *ObjectSource, old published) bool {
	path := old.path
	if src.Items != nil {
		named := func(i Item) bool { return i.Path == path }
		return (old.from == c.source || old.from == unknownSource) && slices.ContainsFunc(src.Items, named)
	}
	_, given := c.files[path]
	return old.from == c.source || old.from == unknownSource && c.tokens[path] != nil && !given
}

// keepRest keeps what stands in the place of a token that is still to come, and
// what may be of a source that fails: of a version from before a restart nobody
// knows. What a working source does not give any more goes.
func (c *content) keepRest() {
	for _, old := range c.of.files {
		if _, ok := c.files[old.path]; !ok && (c.tokens[old.path] != nil || old.from == unknownSource) {
			c.files[old.path], c.from[old.path] = old.kept(), old.from
		}
	}
}

func (p published) kept() atomicwriter.File {
	return atomicwriter.File{Path: p.path, Keep: &p.sum, Mode: p.mode.Perm(), Owner: &p.owner}
}

// addObject adds the projected keys of an object (pkg/volume/configmap/configmap.go,
// pkg/volume/secret/secret.go).
func (c *content) addObject(src *ObjectSource, o *object) {
	switch {
	case o == nil || !o.known && o.err == "": // its watch has just begun
		c.partial = true
		c.keep(src)
	case o.data == nil && o.err != "" && (!o.known || o.refused):
		c.keep(src)
		c.fail(volumeErrorf(ReasonUnreadable, "%s cannot be read: %s", src.Ref, o.err))
	case o.data == nil && !src.Optional:
		c.keep(src)
		c.fail(volumeErrorf(ReasonMissing, "%s does not exist; create it, or mark the source optional", src.Ref))
	default:
		if o.refused { // what it last held stays
			c.missing = cmp.Or(c.missing, volumeErrorf(ReasonUnreadable, "%s cannot be read any more: %s", src.Ref, o.err))
		}
		c.addData(src, o)
	}
}

// addData adds every key, or, if there are items, what they name. One key that is
// missing fails the source.
func (c *content) addData(src *ObjectSource, o *object) {
	for _, item := range src.Items {
		if _, ok := item.of(src, o); !ok && !src.Optional {
			c.keep(src)
			c.fail(volumeErrorf(ReasonMissing, "%s has no key %q; add it, or mark the source optional", src.Ref, item.Key))
			return
		}
	}
	if src.Items == nil {
		for key, data := range o.data {
			c.addKey(src.User, atomicwriter.File{Path: key, Data: data, Mode: src.Mode}, o, key)
		}
	}
	for _, item := range src.Items {
		data, ok := item.of(src, o)
		file := atomicwriter.File{Path: item.Path, Data: data, Mode: item.Mode}
		switch _, there := o.data[item.Key]; {
		case ok && there && item.Divisor == nil:
			c.addKey(item.User, file, o, item.Key)
		case ok:
			c.add(item.User, file)
		}
	}
}

// of is what an item projects. Trust bundles that need not be there are an
// empty file (pkg/kubelet/clustertrustbundle/clustertrustbundle_manager.go).
func (i *Item) of(src *ObjectSource, o *object) (data []byte, ok bool) {
	data, ok = o.data[i.Key]
	switch {
	case !ok && src.Optional && src.Ref.Kind == KindClusterTrustBundle:
		return nil, true
	case ok && i.Divisor != nil:
		amount, err := resource.ParseQuantity(string(data))
		return inUnits(amount, corev1.ResourceName(i.Key), *i.Divisor), err == nil
	}
	return data, ok
}

// differs reports whether the content is not what is published, by path, mode, owner and hash.
func (c *content) differs(v *volume) bool {
	if len(c.files) != len(v.files) {
		return true
	}
	for path, f := range c.files {
		old, ok := v.files.find(path)
		if !ok || f.Mode != old.mode || *f.Owner != old.owner || f.Keep == nil && c.sum(path) != old.sum {
			return true
		}
	}
	return false
}
