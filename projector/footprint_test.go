package projector

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// BenchmarkHeapPerToken measures what a Projector keeps in memory per token that it holds, at rest: pods with the injected
// volume of three files and one with a token for vault, UIDs and names as long as real ones. Watched, it holds the inotify
// watches of both volumes as well, which is as many descriptors as the limit of open files allows.
func BenchmarkHeapPerToken(b *testing.B) {
	for _, tokens := range []int{1000, 5000, 20000} {
		b.Run(fmt.Sprint("tokens=", tokens), func(b *testing.B) { measureHeap(b, tokens, true) })
	}
	b.Run("watched/tokens=4000", func(b *testing.B) { measureHeap(b, 4000, false) })
}

func measureHeap(b *testing.B, tokens int, noWatches bool) {
	var perToken float64
	for range b.N {
		perToken = heapOf(b, tokens, noWatches) / float64(tokens)
	}
	b.ReportMetric(0, "ns/op") // the time is that of filling a disk
	b.ReportMetric(perToken, "B/token")
}

// heapOf is by how many bytes the heap grows when a Projector is run, once everything is published.
func heapOf(b *testing.B, tokens int, noWatches bool) float64 {
	root := openTestRoot(b, memoryDir(b))
	defer root.Close()
	issue := &issuer{now: time.Now}
	var published sync.WaitGroup
	published.Add(tokens)
	p, err := New(Config{
		NodeName: "node", Root: root, Mint: issue.mint, NoWatches: noWatches,
		AccountUID: func(context.Context, string, string) (types.UID, error) { return "a", nil },
		Published:  func(Published) { published.Done() },
	})
	if err != nil {
		b.Fatal(err)
	}
	before := heap()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx) }()
	p.Replace(realWishes(tokens / 2))
	p.Touch(ObjectRef{Kind: KindConfigMap, Namespace: "default", Name: "kube-root-ca.crt"}, map[string][]byte{"ca.crt": make([]byte, 1100)})
	published.Wait()
	p.Synced(ctx) // the last result has been taken in
	grown := heap() - before
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	return grown
}

// realWishes are those of pods as they come from an API server, which are dropped.
func realWishes(pods int) []Wish {
	wishes := make([]Wish, 0, pods)
	for n := range pods {
		pod := testPod(n, "vault", 3600)
		pod.Name = fmt.Sprintf("deployment-5f7d8c9b6-%05d", n)
		pod.UID = types.UID(fmt.Sprintf("a0b1c2d3-e4f5-4a6b-8c7d-%012d", n))
		pod.Spec.Volumes[0].Name = fmt.Sprintf("kube-api-access-%05d", n)
		pod.Spec.Containers = make([]corev1.Container, 1)
		wishes = append(wishes, Desired(pod, SelectAll))
	}
	return wishes
}

func heap() float64 {
	runtime.GC() // twice: what a sync.Pool holds survives the first
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// TestAlikeIsKeptOnce: what volumes of one account have word for word in common is kept once, and what the caller gave
// stays as it was.
func TestAlikeIsKeptOnce(t *testing.T) {
	r := newRig(t)
	r.s.lookUp = true
	wishes := realWishes(2)
	other := testPod(7, "vault", 7200)
	other.Namespace = "other"
	wishes = append(wishes, Desired(other, SelectAll), Desired(testPod(8, "vault", 7200), SelectAll))
	given := make(map[types.UID]*Source)
	for _, w := range wishes {
		given[w.UID] = &w.Volumes[0].Sources[0]
		r.s.apply(w, r.now)
	}
	kept := func(n, volume int) *Source { return &r.s.pods[wishes[n].UID].volumes[volume].wish.Sources[0] }
	for volume := range 2 { // the first is "extra", the other the injected one
		if kept(0, volume) != kept(1, volume) || kept(0, volume) == kept(2, volume) {
			t.Errorf("volume %d: the same is kept twice, or another account's is taken", volume)
		}
	}
	if kept(3, 0) == kept(0, 0) || kept(3, 0).Token.ExpirationSeconds != 7200 {
		t.Errorf("another lifetime: %+v", kept(3, 0).Token)
	}
	for _, w := range wishes {
		if &w.Volumes[0].Sources[0] != given[w.UID] {
			t.Errorf("pod %s: what the caller gave was changed", w.Name)
		}
		for _, v := range r.s.pods[w.UID].volumes {
			if v.tokens[0].source != v.wish.Sources[0].Token {
				t.Errorf("%v: the token is of another source than the wish's", v.key)
			}
		}
	}
}

// BenchmarkLargeObject is how long the owner compares what 110 volumes hold with what they should, when a configMap of a MiB
// is part of each: as it does when that changes, and for one volume with each of its tokens and looks.
func BenchmarkLargeObject(b *testing.B) {
	r := newRig(b)
	for n := range 110 {
		pod := lonePod(n, 3600)
		sources := &pod.Spec.Volumes[0].Projected.Sources
		*sources = append(*sources, settingsSource(KindConfigMap, "c", false))
		r.apply(pod)
	}
	r.s.replace(r.wishes(), r.now)
	r.s.touch(settingsRef(KindConfigMap), map[string][]byte{"k": make([]byte, 1<<20)}, r.now)
	r.drain()
	for b.Loop() {
		for n := range 110 {
			v := r.volume(extra(n))
			if r.s.examine(v, r.s.now); v.dirty || !v.whole {
				b.Fatal("not as published")
			}
		}
	}
}
