package projector

import (
	"slices"
	"strings"
	"time"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/rotation"
)

// finishRead takes in what was on disk before us.
func (s *state) finishRead(j *readJob, version atomicwriter.Version, sums [][32]byte, claims map[string]Claims, f found, now rotation.Time) {
	s.onDisk--
	v, server := j.v, s.server(now)
	s.tend(v, f, server)
	wanted := s.end(v, now)
	if f.err == nil {
		v.known, v.whole, v.version = true, version.Name != "", version.Name
		s.noteWatches(v, v.watch.blind)
		v.files = make(versionFiles, 0, len(version.Files))
		for i, e := range version.Files {
			p := published{path: e.Path, sum: sums[i], mode: e.Mode, owner: e.Owner, from: unknownSource}
			if _, ok := claims[e.Path]; ok {
				p.from = tokenLike
			}
			v.files = append(v.files, p)
		}
		slices.SortFunc(v.files, func(a, b published) int { return strings.Compare(a.path, b.path) })
		s.adopt(v, claims, now)
	}
	if wanted {
		s.examine(v, server)
		s.plan(v, server)
	}
}

// adopt takes the tokens on disk that fit the wish, whatever their lifetime.
// Anything odd stays where it is and is minted anew, for that entry alone.
//
// A token that was issued soon after its pod came to the node, or after the root was made for pods
// that were there, is taken for their first, which has the wide window.
func (s *state) adopt(v *volume, claims map[string]Claims, now rotation.Time) {
	server := s.server(now)
	w, n := &v.pod.wish, 0
	born := later(w.Born, s.born(now))
	for i := range v.tokens {
		t := &v.tokens[i]
		c, ok := claims[t.source.Path]
		r := Request{Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, PodUID: w.UID, Audience: t.source.Audience}
		if !ok || c.fits(r) != nil {
			continue
		}
		on, _ := v.files.find(t.source.Path)
		t.sum, t.life, t.uid = on.sum, c.Lifetime, c.AccountUID
		first := t.life.First(born)
		t.due = t.life.DueAdopted(t.seed, first, server)
		t.floor = t.life.Floor(t.life.Issued, first)
		n++
	}
	if s.clock.Heard() {
		v.doubt(server)
	}
	s.metrics.Adopted(n)
}

// born is when the root was made, in server time; zero: unknown.
func (s *state) born(now rotation.Time) time.Time {
	if s.rootBorn.IsZero() {
		return time.Time{}
	}
	return s.server(now).Add(s.rootBorn.Sub(now.Wall))
}
