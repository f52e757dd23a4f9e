package projector

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/rotation"
)

// BenchmarkLook is what the slow sweep costs a volume that is in order: a disk job that reads it, and sees to its two
// watches. The volume has three files, as the kubelet's.
func BenchmarkLook(b *testing.B) {
	root := openTestRoot(b, memoryDir(b))
	defer root.Close()
	d := &disk{root: root, watch: newWatcher()}
	defer d.watch.close()
	self := root.owner()
	j := &publishJob{key: access(0), now: time.Now().Add(time.Minute), verify: true} // links that are young are read each time
	for _, name := range []string{"token", "ca.crt", "namespace"} {
		f := atomicwriter.File{Path: name, Data: make([]byte, 1126), Mode: 0o644, Owner: &self}
		if name == "namespace" {
			f.Data = []byte("default")
		}
		j.files = append(j.files, f)
	}
	r, f := d.publish(j)
	for i := range j.files { // as a look does, which knows the hashes alone
		j.files[i].Data, j.files[i].Keep = nil, &r.Sums[i]
	}
	b.ReportAllocs()
	for b.Loop() {
		if j.watch = f.watch; f.err != nil || f.watch.blind != nil {
			b.Fatal(f.err, f.watch.blind)
		}
		if r, f = d.publish(j); r.Outcome != atomicwriter.Unchanged && r.Outcome != atomicwriter.Written {
			b.Fatal(r.Outcome)
		}
	}
	d.watch.release(&f.watch)
}

// BenchmarkSurvey is one look of observe at a full node: 110 pods with two volumes of a token each; largest, with a MiB of something
// else in one of the two.
func BenchmarkSurvey(b *testing.B) {
	for name, size := range map[string]int{"ordinary": 1 << 10, "largest": 1<<20 - 1<<10} {
		b.Run(name, func(b *testing.B) {
			root, token := memoryDir(b), altered(nil)
			for i := range 110 {
				for volume, content := range map[string]string{"kube-api-access": "ca.crt", "vault": strings.Repeat("a", size)} {
					publishAt(b, filepath.Join(root, volumePath(Key{PodUID: uid(i), Volume: volume})), "token", token, "content", content)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				tokens := 0
				if err := Survey(root, func(v FoundVolume) { tokens += len(v.Tokens) }); err != nil || tokens != 220 {
					b.Fatal(tokens, err)
				}
			}
		})
	}
}

// BenchmarkHeld is what the owner spends while it holds so many volumes of one token each: on a pod's event that changes
// nothing, on one refresh from its dispatch to its commit, the workers' parts by memory alone and the sweep
// of the old version included, and on a turn in which nothing is to be done.
func BenchmarkHeld(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		r := holding(b, n)
		b.Run(fmt.Sprintf("event/held=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.s.apply(r.s.pods[uid(rand.IntN(n))].wish, r.now)
				r.turn()
			}
		})
		b.Run(fmt.Sprintf("refresh/held=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.refresh()
			}
		})
		b.Run(fmt.Sprintf("idle/held=%d", n), func(b *testing.B) {
			for r.finishAll(); r.s.wake(r.now) <= 0; r.finishAll() {
			}
			b.ReportAllocs()
			for b.Loop() {
				if len(r.turn()) > 0 || r.s.wake(r.now) <= 0 {
					b.Fatal("there is something to be done")
				}
			}
		})
	}
}

// holding is a rig of n lone pods that have lived for a while, with a server and a disk that cost little.
func holding(b *testing.B, n int) *rig {
	r := newRig(b)
	r.s.log, r.s.published, r.s.events, r.s.sweep = zap.NewNop(), nil, nil, 1000*time.Hour
	minted := 0
	padding := strings.Repeat("x", 900)
	r.answer = func(q Request) (Minted, error) {
		minted++
		issued := r.server().Truncate(time.Second)
		return Minted{
			Token: NewToken(fmt.Sprintf("%s.%d", padding, minted)), ServerTime: r.server(),
			Lifetime: rotation.Lifetime{Issued: issued, Expires: issued.Add(time.Duration(q.ExpirationSeconds) * time.Second)},
		}, nil
	}
	for i := range n {
		r.apply(lonePod(i, 3600))
	}
	r.s.replace(r.wishes(), r.now)
	r.finishAll()
	r.pass(15 * time.Minute) // refreshes have begun, and are spread over the rest of the hour
	for end := r.now.Mono + time.Minute; r.now.Mono < end; r.pass(max(r.s.wake(r.now), time.Millisecond)) {
		r.finishAll()
	}
	return r
}

// finishAll is drain without its bound.
func (r *rig) finishAll() {
	for r.turn(); len(r.flying) > 0; r.turn() {
		r.finish(r.flying[0])
		r.requests = r.requests[:0]
	}
}

// refresh lets time pass, if it must, until one more version is written.
func (r *rig) refresh() {
	for made := r.made; r.made == made; r.requests = r.requests[:0] {
		if r.turn(); len(r.flying) == 0 {
			r.pass(max(r.s.wake(r.now), time.Millisecond))
			continue
		}
		r.finish(r.flying[0])
	}
}
