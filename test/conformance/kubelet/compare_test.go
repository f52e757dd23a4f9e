package kubelet

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

var (
	seedFlag = flag.Uint64("seed", 0, "compare this pod, and those that follow on it; 0: by chance")
	podsFlag = flag.Int("pods", 1000, "how many pods are compared by chance")
)

// TestFixedPods compares forty pods, the same ones every time.
func TestFixedPods(t *testing.T) {
	seeds := []uint64{297, 486, 535} // these meet the rare differences
	for n := range uint64(37) {
		seeds = append(seeds, 521+n) // and these every other one
	}
	comparePods(t, seeds).wantAll(t, true)
}

// TestRandomPods compares a thousand pods, other ones every time.
func TestRandomPods(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	seeds := make([]uint64, *podsFlag)
	for i := range seeds {
		seeds[i] = seed + uint64(i)
	}
	t.Logf("from seed %d", seed)
	if all := comparePods(t, seeds); *podsFlag >= 1000 {
		all.wantAll(t, false)
	}
}

// compared is what the comparison of many pods has met.
type compared struct {
	mu        sync.Mutex
	published int // projections of volumes that were to be published
	met       metDifferences
}

func comparePods(t *testing.T, seeds []uint64) *compared {
	t.Helper()
	all := &compared{met: metDifferences{}}
	if os.Geteuid() != 0 {
		t.Logf("an ordinary user: every user and group is %d:%d", os.Geteuid(), os.Getegid())
	}
	t.Run("pods", func(t *testing.T) {
		for _, seed := range seeds {
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				t.Parallel()
				all.add(comparePod(t, seed))
			})
		}
	})
	t.Logf("%d pods: %d times was a volume published and compared\n%s", len(seeds), all.published, all.met)
	return all
}

func (a *compared) add(c *comparison) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.published += c.published
	for d, n := range c.met {
		a.met[d] += n
	}
}

// wantAll wants enough volumes to have been published, and every difference to have been met.
func (a *compared) wantAll(t *testing.T, rare bool) {
	t.Helper()
	if a.published < 80 {
		t.Errorf("only %d times was a volume published: the generator makes too many bad ones", a.published)
	}
	if missing := a.met.missing(rare); len(missing) > 0 {
		t.Errorf("no pod has met %q: either it is no difference any more, or the generator makes no such pods", missing)
	}
}

// comparePod makes a pod of the seed, lets something happen to it, and has both sides project it before and after.
func comparePod(t *testing.T, seed uint64) *comparison {
	t.Helper()
	before := generate(seed)
	after, what := newDice(^seed).change(before)
	c := project(t, memoryDir(t), before, after)
	c.judge()
	if len(c.faults) > 0 {
		t.Errorf("between the projections: %s\n%s\n%s", what, strings.Join(c.faults, "\n"), manifest(t, before, after))
	}
	return c
}

// manifest shows a pod and what it is made of, and then what has changed.
func manifest(t *testing.T, worlds ...*world) string {
	var out strings.Builder
	for _, w := range worlds {
		objects := map[string]map[string]string{}
		for ref, data := range w.objects {
			objects[ref.String()] = map[string]string{}
			for key, value := range data {
				objects[ref.String()][key] = fmt.Sprintf("%.40q, %d bytes", value, len(value))
			}
		}
		text, err := yaml.Marshal(map[string]any{"pod": w.pod, "objects": objects, "bundles": w.bundles, "issue of tokens": w.issue})
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		out.Write(text)
	}
	return out.String()
}
