package rotation

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// model is a queue that anybody can see to be right.
type model map[int]modelEntry

type modelEntry struct{ due, deadline time.Time }

// popped reports why key is a wrong answer of Pop at now, or "".
func (m model) popped(key int, ok bool, now time.Time) string {
	best, due := time.Time{}, 0
	for _, e := range m {
		if e.due.After(now) {
			continue
		}
		if due++; due == 1 || e.deadline.Before(best) {
			best = e.deadline
		}
	}
	e, held := m[key]
	switch {
	case !ok && due > 0:
		return fmt.Sprintf("nothing popped, though %d are due", due)
	case ok && !held:
		return fmt.Sprintf("popped %d, which is not held", key)
	case ok && e.due.After(now):
		return fmt.Sprintf("popped %d, due only in %v", key, e.due.Sub(now))
	case ok && !e.deadline.Equal(best):
		return fmt.Sprintf("popped %d with deadline %v, want %v", key, e.deadline, best)
	}
	return ""
}

// soonest is the earliest due time held.
func (m model) soonest() (best time.Time, ok bool) {
	for _, e := range m {
		if !ok || e.due.Before(best) {
			best, ok = e.due, true
		}
	}
	return best, ok
}

// trial runs a queue and its model side by side.
type trial struct {
	queue Queue[int]
	model model
	now   time.Time
	idle  bool // the latest Pop, at now, found nothing
}

// step carries out the operation that four bytes stand for, and returns what
// is wrong with its outcome, or "".
func (r *trial) step(kind, key, a, b byte) string {
	k, by := int(key%24), time.Duration(a)
	switch kind % 8 {
	case 0, 1, 2: // also in the past, and often at the same nanosecond
		e := modelEntry{r.now.Add(by - 64), r.now.Add(time.Duration(b) - 64)}
		r.queue.Set(k, e.due, e.deadline)
		r.model[k], r.idle = e, false
	case 3:
		r.queue.Remove(k)
		delete(r.model, k)
	case 4:
		r.now, r.idle = r.now.Add(by/4), false
	case 5:
		if b < 64 {
			r.now, r.idle = r.now.Add(-by), false
		}
	case 6:
		return r.pop()
	case 7:
		if wrong := r.pop(); wrong != "" || !r.idle {
			return wrong
		}
		return r.popEarly()
	}
	return r.consistent()
}

func (r *trial) pop() string {
	key, ok := r.queue.Pop(r.now)
	if wrong := r.model.popped(key, ok, r.now); wrong != "" {
		return wrong
	}
	if r.idle = !ok; ok {
		delete(r.model, key)
	}
	return r.consistent()
}

// popEarly follows a Pop that found nothing, as it does wherever it is used.
func (r *trial) popEarly() string {
	best, any := r.model.soonest()
	key, ok := r.queue.PopEarly(r.now)
	if ok != any || ok && !r.model[key].due.Equal(best) {
		return fmt.Sprintf("PopEarly: %d %v, want one due at %v", key, ok, best)
	}
	delete(r.model, key)
	return r.consistent()
}

func (r *trial) consistent() string {
	if r.queue.Len() != len(r.model) {
		return fmt.Sprintf("Len %d, want %d", r.queue.Len(), len(r.model))
	}
	best, any := r.model.soonest()
	next, ok := r.queue.Next(r.now)
	if best.Before(r.now) {
		best = r.now
	}
	if ok != any || ok && !next.Equal(best) {
		return fmt.Sprintf("Next %v, %v, want %v, %v", next, ok, best, any)
	}
	return ""
}

func runTrial(ops []byte) string {
	r := trial{model: model{}, now: epoch}
	for n := 0; len(ops) >= 4; n, ops = n+1, ops[4:] {
		if wrong := r.step(ops[0], ops[1], ops[2], ops[3]); wrong != "" {
			return fmt.Sprintf("step %d, %v: %s", n, ops[:4], wrong)
		}
	}
	return ""
}

// TestQueueAgainstModel runs random histories in which now also goes back.
func TestQueueAgainstModel(t *testing.T) {
	base := rand.Uint64()
	for n := range uint64(300) {
		random := rand.New(rand.NewPCG(base, n))
		ops := make([]byte, 4*800)
		for i := range ops {
			ops[i] = byte(random.Uint32())
		}
		if wrong := runTrial(ops); wrong != "" {
			t.Fatalf("seed %d, %d: %s", base, n, wrong)
		}
	}
}

func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 1, 10, 20, 0, 1, 90, 5, 4, 0, 200, 0, 6, 0, 0, 0, 7, 0, 0, 0})
	f.Add([]byte{0, 1, 0, 9, 0, 2, 200, 1, 7, 0, 0, 0, 5, 0, 255, 0, 6, 0, 0, 0, 3, 2, 0, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if wrong := runTrial(ops); wrong != "" {
			t.Fatal(wrong)
		}
	})
}

// TestQueueEdge: due at T, not 1 ns before.
func TestQueueEdge(t *testing.T) {
	var q Queue[string]
	q.Set("a", epoch, epoch)
	if k, ok := q.Pop(epoch.Add(-1)); ok {
		t.Errorf("popped %q 1 ns early", k)
	}
	if k, ok := q.PopEarly(epoch); ok {
		t.Errorf("PopEarly took %q, which is due", k)
	}
	if k, ok := q.Pop(epoch); !ok || k != "a" {
		t.Errorf("at its time: %q, %v", k, ok)
	}
}

func TestQueueSetMovesBothWays(t *testing.T) {
	var q Queue[string]
	at := func(s time.Duration) time.Time { return epoch.Add(s * time.Second) }
	q.Set("a", at(5), at(5))
	q.Set("b", at(6), at(6))
	q.Pop(at(4)) // both wait
	q.Set("a", at(7), at(7))
	if next, _ := q.Next(at(4)); !next.Equal(at(6)) {
		t.Errorf("after a moved later: next %v", next)
	}
	q.Set("b", at(1), at(1))
	if next, _ := q.Next(epoch); !next.Equal(at(1)) {
		t.Errorf("after b moved earlier: next %v", next)
	}
	if _, ok := q.PopEarly(at(1)); !ok { // b is ready now
		t.Error("a was not handed out early")
	}
	q.Set("b", at(9), at(9))
	if k, ok := q.Pop(at(8)); ok {
		t.Errorf("%q popped, though it was moved away after it had been ready", k)
	}
	if q.Len() != 1 {
		t.Errorf("%d keys", q.Len())
	}
}

// TestQueueSoonestDeadlineFirst: of what is due together, what expires first.
func TestQueueSoonestDeadlineFirst(t *testing.T) {
	var q Queue[int]
	for i := range 10 {
		q.Set(i, epoch.Add(time.Duration(i)), epoch.Add(-time.Duration(i)*time.Hour))
	}
	for want := 9; want >= 0; want-- {
		if got, ok := q.Pop(epoch.Add(10)); !ok || got != want {
			t.Fatalf("popped %d, %v, want %d", got, ok, want)
		}
	}
}

// TestQueueZeroTime: the zero time, "at once" to the callers, is due.
func TestQueueZeroTime(t *testing.T) {
	var q Queue[int]
	q.Set(1, time.Time{}, epoch.Add(time.Minute))
	if k, ok := q.Pop(epoch); !ok || k != 1 {
		t.Errorf("%d, %v", k, ok)
	}
	q.Remove(1)
	if _, ok := q.Next(epoch); ok || q.Len() != 0 {
		t.Error("not empty")
	}
}
