package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/projector"
)

// fault is a kind of what must never be seen of a token file.
type fault string

const (
	missing fault = "missing though it was there"
	torn    fault = "no token"
	foreign fault = "another pod's"
	expired fault = "expired"
)

// file is what has been seen of one token file. The reader alone touches it.
type file struct {
	uid, dir, name string    // of the pod; of its volume; of the file in that
	asked          time.Time // before the POST of its pod
	version        string    // what ..data points to
	sum            [sha256.Size]byte
	claims         projector.Claims
	first          time.Time // when the first token was there
	faults         map[fault]int
}

// refresh is one token that took another's place.
type refresh struct {
	of   *file
	at   time.Time
	late time.Duration // after 80 % of the lifetime of the other; below 0 it was earlier
	life time.Duration // of the other
}

// reader looks at token files by itself.
type reader struct {
	root  string
	every time.Duration // between its looks at a file; at most eye: a look tells the time of a change
	files []*file
	gone  []*file // of pods that were deleted
	done  []refresh
}

// eye is the longest time between looks for which what was seen is taken for when it happened: the kubelet was measured
// that way. Else it is when the file system has the swap of ..data.
const eye = 20 * time.Millisecond

// newReader returns one that can look at so many files without taking more than some 7 % of a core.
func newReader(root string, files int) *reader {
	return &reader{root: root, every: max(eye, time.Duration(files)*40*time.Microsecond)}
}

// filesOf are the token files that a pod shall have.
func filesOf(root string, pod *corev1.Pod, asked time.Time) (files []*file) {
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				dir := filepath.Join(root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", v.Name)
				files = append(files, &file{uid: string(pod.UID), dir: dir, name: s.ServiceAccountToken.Path, asked: asked})
			}
		}
	}
	return files
}

// forget takes the files of a pod that is about to be deleted out of sight.
func (r *reader) forget(uid string) {
	r.files = slices.DeleteFunc(r.files, func(f *file) bool {
		if f.uid != uid {
			return false
		}
		r.gone = append(r.gone, f)
		return true
	})
}

// sweep looks at all files.
func (r *reader) sweep() {
	for _, f := range r.files {
		r.look(f)
	}
}

func (f *file) fail(what fault) {
	if f.faults == nil {
		f.faults = map[fault]int{}
	}
	f.faults[what]++
}

// look reads a file if there is another version of its volume.
func (r *reader) look(f *file) {
	version, swapped, err := dataLink(f.dir)
	now := time.Now()
	switch {
	case err != nil && f.first.IsZero():
		return
	case err != nil:
		f.fail(missing)
		return
	case version != f.version:
		r.read(f, version, swapped)
	}
	if !f.first.IsZero() && !now.Before(f.claims.Lifetime.Expires) {
		f.fail(expired)
	}
}

// read takes in a version.
func (r *reader) read(f *file, version string, swapped time.Time) {
	content, err := os.ReadFile(filepath.Join(f.dir, f.name))
	seen := time.Now()
	if again, _, err := dataLink(f.dir); err != nil || again != version {
		return // another one is there already: the next look is for that
	}
	if r.every > eye {
		seen = swapped
	}
	f.accept(content, err, seen, &r.done)
	f.version = version
}

// accept judges what was read of the file at a time.
func (f *file) accept(content []byte, err error, seen time.Time, done *[]refresh) {
	if err != nil {
		f.fail(missing)
		return
	}
	sum := sha256.Sum256(content)
	if sum == f.sum {
		return // something else of the volume has changed
	}
	claims, err := projector.ParseClaims(content)
	switch {
	case err != nil:
		f.fail(torn)
		return
	case string(claims.PodUID) != f.uid:
		f.fail(foreign)
		return
	}
	if before := f.claims.Lifetime; f.first.IsZero() {
		f.first = seen
	} else {
		*done = append(*done, refresh{of: f, at: seen, late: seen.Sub(before.Issued.Add(limit(before.TTL()))), life: before.TTL()})
	}
	f.sum, f.claims = sum, claims
}

// limit is the age at which a token must be refreshed.
func limit(life time.Duration) time.Duration { return min(life*8/10, 24*time.Hour) }

// dataLink is what a volume's ..data points to, and when it was put there.
func dataLink(dir string) (version string, at time.Time, err error) {
	link := filepath.Join(dir, "..data")
	var st syscall.Stat_t
	if err := syscall.Lstat(link, &st); err != nil {
		return "", at, err
	}
	version, err = os.Readlink(link)
	return version, time.Unix(st.Ctim.Unix()), err
}

// wrong lists what was seen that must not be, and files that never came.
func (r *reader) wrong() (all []string) {
	faults, never := map[fault]int{}, 0
	for _, f := range slices.Concat(r.gone, r.files) {
		for what := range f.faults {
			faults[what]++
		}
	}
	for _, f := range r.files {
		if f.first.IsZero() {
			never++
		}
	}
	for _, what := range []fault{missing, torn, foreign, expired} {
		if n := faults[what]; n > 0 {
			all = append(all, fmt.Sprintf("%d token files were %s", n, what))
		}
	}
	if never > 0 {
		all = append(all, fmt.Sprintf("%d of %d token files never came", never, len(r.files)))
	}
	return all
}

// firsts are the times from the POST of a pod to each of its tokens, sorted, of pods that were created since.
func (r *reader) firsts(since time.Time) (took []time.Duration) {
	for _, f := range slices.Concat(r.gone, r.files) {
		if !f.first.IsZero() && !f.asked.Before(since) {
			took = append(took, f.first.Sub(f.asked))
		}
	}
	slices.Sort(took)
	return took
}

// lates are by how much refreshes since were late, sorted.
func (r *reader) lates(since time.Time) (late []time.Duration) {
	for _, d := range r.done {
		if !d.at.Before(since) {
			late = append(late, d.late)
		}
	}
	slices.Sort(late)
	return late
}
