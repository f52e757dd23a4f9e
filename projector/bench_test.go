package projector

import (
	"testing"
	"time"

	"github.com/token-projector/token-projector/atomicwriter"
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
