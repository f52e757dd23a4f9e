package projector

import (
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
		for i, e := range version.Files {
			p := published{sum: sums[i], mode: e.Mode, owner: e.Owner, from: unknownSource}
			if _, ok := claims[e.Path]; ok {
				p.from = tokenLike
			}
			v.files[e.Path] = p
		}
		s.adopt(v, claims, server)
	}
	if wanted {
		s.examine(v, server)
		s.plan(v, server)
	}
}

// adopt takes the tokens on disk that fit the wish, whatever their lifetime.
// Anything odd stays where it is and is minted anew, for that entry alone.
func (s *state) adopt(v *volume, claims map[string]Claims, server time.Time) {
	w, n := &v.pod.wish, 0
	for i := range v.tokens {
		t := &v.tokens[i]
		c, ok := claims[t.source.Path]
		r := Request{Namespace: w.Namespace, ServiceAccount: w.ServiceAccount, PodUID: w.UID, Audience: t.source.Audience}
		if !ok || c.fits(r) != nil {
			continue
		}
		t.sum, t.life, t.uid = v.files[t.source.Path].sum, c.Lifetime, c.AccountUID
		t.due = t.life.DueAdopted(t.seed, server)
		t.floor = t.life.Floor(t.life.Issued, true)
		n++
	}
	if s.clock.Heard() {
		v.doubt(server)
	}
	s.metrics.Adopted(n)
}
