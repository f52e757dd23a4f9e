package kubelet

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"k8s.io/kubernetes/pkg/volume/util"

	"github.com/token-projector/token-projector/atomicwriter"
)

// publisher publishes volumes of three files, as the kubelet's injected one: a token and a ca.crt of 1.1 KiB each, and a
// namespace. A publish opens the volume's directory and is done with it.
type publisher interface {
	// publish shows the n-th token in the directory of that name, which is there.
	publish(name string, n int) error
	// sweep removes what earlier publishes of the directory left to be removed later.
	sweep(name string) error
}

// publishers are the kubelet's AtomicWriter, ours, and what the layout alone costs, on the volumes in dir.
var publishers = map[string]func(dir string) (publisher, error){
	"kubelet": func(dir string) (publisher, error) {
		k := theirs{dir, map[string]util.FileProjection{}}
		for name, data := range volumeContent() {
			k.payload[name] = util.FileProjection{Data: data, Mode: 0o644}
		}
		return k, nil
	},
	"bare": func(dir string) (publisher, error) { return bare{dir, volumeContent()}, nil },
	"ours": func(dir string) (publisher, error) {
		pod, err := atomicwriter.OpenRoot(dir)
		o := &own{pod: pod, stale: map[string][]string{}, links: map[string]*atomicwriter.Links{}}
		for name, data := range volumeContent() {
			o.files = append(o.files, atomicwriter.File{Path: name, Data: data, Mode: 0o644})
		}
		slices.SortFunc(o.files, func(a, b atomicwriter.File) int { return len(a.Path) - len(b.Path) }) // the token first
		return o, err
	},
}

func volumeContent() map[string][]byte {
	return map[string][]byte{
		"token": bytes.Repeat([]byte{'t'}, 1126), "ca.crt": bytes.Repeat([]byte{'c'}, 1126), "namespace": []byte("default"),
	}
}

// number writes n into a token.
func number(token []byte, n int) { copy(token, fmt.Sprintf("%08d", n)) }

type theirs struct {
	dir     string
	payload map[string]util.FileProjection
}

func (k theirs) publish(name string, n int) error {
	number(k.payload["token"].Data, n)
	w, err := util.NewAtomicWriter(filepath.Join(k.dir, name), "bench")
	if err != nil {
		return err
	}
	return w.Write(k.payload, nil)
}

func (theirs) sweep(string) error { return nil } // its publish removes the old version

type own struct {
	pod   *atomicwriter.Dir
	files []atomicwriter.File
	stale map[string][]string
	links map[string]*atomicwriter.Links
	looks bool // no publish changes anything
}

// atWork is when ours publishes: links that it finds are never young.
var atWork = time.Now().Add(time.Hour)

func (o *own) publish(name string, n int) error {
	number(o.files[0].Data, n)
	d, err := o.pod.Open(name)
	if err != nil {
		return err
	}
	options := atomicwriter.Options{Now: atWork.Add(time.Duration(n))}
	if o.looks {
		if o.links[name] == nil {
			o.links[name] = new(atomicwriter.Links)
		}
		options.Links = o.links[name]
	}
	r, err := d.Publish(o.files, options)
	if err != nil {
		return err
	}
	o.stale[name] = r.Stale
	return d.Close()
}

func (o *own) sweep(name string) error {
	d, err := o.pod.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sweep(o.stale[name])
}

var (
	kinds = []string{"first", "changed", "unchanged"} // of publishes
	bys   = []string{"kubelet", "ours", "bare"}
)

// series is many publishes of one kind.
type series struct {
	kind string
	dir  string
	p    publisher
	done int // publishes, in all
}

const below = "volumes/kubernetes.io~projected"

func newSeries(kind, by, dir string) (*series, error) {
	p, err := publishers[by](dir)
	if err != nil {
		return nil, err
	}
	if o, ok := p.(*own); ok {
		o.looks = kind == "unchanged"
	}
	s := &series{kind: kind, dir: dir, p: p}
	if kind == "first" {
		return s, nil
	}
	if err := os.MkdirAll(filepath.Join(dir, below, "volume"), 0o755); err != nil {
		return nil, err
	}
	for range 2 { // the second has links to remember
		if err := s.p.publish(s.volume(0), 0); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// batch is how many publishes share one clean-up.
const batch = 10

// volume is where the i-th publish of a batch is made.
func (s *series) volume(i int) string {
	if s.kind == "first" {
		return fmt.Sprintf("%s/volume%d", below, i)
	}
	return below + "/volume"
}

// prepare comes before a batch.
func (s *series) prepare() error {
	switch s.kind {
	case "changed":
		return s.p.sweep(s.volume(0))
	case "unchanged":
		return nil
	}
	if err := os.RemoveAll(filepath.Join(s.dir, "volumes")); err != nil {
		return err
	}
	for i := range batch {
		if err := os.MkdirAll(filepath.Join(s.dir, s.volume(i)), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// publish is the i-th of a batch.
func (s *series) publish(i int) error {
	if s.kind == "changed" {
		s.done++
	}
	return s.p.publish(s.volume(i), s.done)
}

// BenchmarkPublish is one publish on tmpfs, by the kubelet's AtomicWriter, by ours, and bare.
func BenchmarkPublish(b *testing.B) {
	for _, kind := range kinds {
		for _, by := range bys {
			b.Run(kind+"/by="+by, func(b *testing.B) { benchSeries(b, kind, by) })
		}
	}
}

func benchSeries(b *testing.B, kind, by string) {
	s, err := newSeries(kind, by, memoryDir(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%batch == 0 && kind != "unchanged" {
			b.StopTimer()
			if err := s.prepare(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
		if err := s.publish(i % batch); err != nil {
			b.Fatal(err)
		}
	}
}
