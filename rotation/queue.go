package rotation

import (
	"container/heap"
	"slices"
	"time"
)

// Queue holds keys until they are due and then hands them out soonest deadline
// first: when more is due than can be done at once, what expires next goes
// first. Every operation is O(log n), but for the first after now went back,
// which looks at all that was due. The zero value is ready to use.
type Queue[K comparable] struct {
	entries map[K]*entry[K]
	waiting entryHeap[K] // not yet seen due; by due
	ready   entryHeap[K] // seen due; by deadline
	sorted  int64        // the now of the latest sort, in Unix nanoseconds
}

type entry[K comparable] struct {
	key      K
	due      int64 // Unix nanoseconds, like deadline
	deadline int64
	index    int // position in the heap that holds it
	ready    bool
}

// Len is the number of keys held.
func (q *Queue[K]) Len() int { return len(q.entries) }

// Set puts key into the queue, or moves it: earlier, later, either way.
func (q *Queue[K]) Set(key K, due, deadline time.Time) {
	e := q.entries[key]
	if e == nil {
		e = &entry[K]{key: key}
		if q.entries == nil {
			q.entries, q.ready.byDeadline = make(map[K]*entry[K]), true
		}
		q.entries[key] = e
	} else {
		heap.Remove(q.heapOf(e), e.index)
	}
	e.due, e.deadline, e.ready = due.UnixNano(), deadline.UnixNano(), false
	heap.Push(&q.waiting, e)
}

// Remove takes key out; a key that is not held is no error.
func (q *Queue[K]) Remove(key K) {
	if e := q.entries[key]; e != nil {
		heap.Remove(q.heapOf(e), e.index)
		delete(q.entries, key)
	}
}

// Pop takes out, of the keys due at now, the one with the soonest deadline.
func (q *Queue[K]) Pop(now time.Time) (key K, ok bool) {
	q.sort(now.UnixNano())
	if len(q.ready.of) == 0 {
		return key, false
	}
	e := heap.Pop(&q.ready).(*entry[K])
	delete(q.entries, e.key)
	return e.key, true
}

// PopEarly takes out, of the keys not yet due at now, the one that is due next.
func (q *Queue[K]) PopEarly(now time.Time) (key K, ok bool) {
	q.sort(now.UnixNano())
	if len(q.waiting.of) == 0 {
		return key, false
	}
	e := heap.Pop(&q.waiting).(*entry[K])
	delete(q.entries, e.key)
	return e.key, true
}

// Next is when Pop has something to hand out: now if any key is due, else when
// the next one will be. ok is false for an empty queue.
func (q *Queue[K]) Next(now time.Time) (at time.Time, ok bool) {
	q.sort(now.UnixNano())
	if len(q.ready.of) > 0 {
		return now, true
	}
	if len(q.waiting.of) > 0 {
		return time.Unix(0, q.waiting.of[0].due), true
	}
	return time.Time{}, false
}

// sort moves what has become due to ready; and back, if the estimate of now
// went back, what is due no longer.
func (q *Queue[K]) sort(now int64) {
	if now < q.sorted {
		for _, e := range slices.Clone(q.ready.of) {
			if e.due > now {
				heap.Remove(&q.ready, e.index)
				e.ready = false
				heap.Push(&q.waiting, e)
			}
		}
	}
	q.sorted = now
	for len(q.waiting.of) > 0 && q.waiting.of[0].due <= now {
		e := heap.Pop(&q.waiting).(*entry[K])
		e.ready = true
		heap.Push(&q.ready, e)
	}
}

func (q *Queue[K]) heapOf(e *entry[K]) *entryHeap[K] {
	if e.ready {
		return &q.ready
	}
	return &q.waiting
}

// entryHeap implements heap.Interface and keeps the entries' indices.
type entryHeap[K comparable] struct {
	of         []*entry[K]
	byDeadline bool
}

func (h *entryHeap[K]) Len() int { return len(h.of) }

func (h *entryHeap[K]) Less(i, j int) bool {
	if h.byDeadline {
		return h.of[i].deadline < h.of[j].deadline
	}
	return h.of[i].due < h.of[j].due
}

func (h *entryHeap[K]) Swap(i, j int) {
	h.of[i], h.of[j] = h.of[j], h.of[i]
	h.of[i].index, h.of[j].index = i, j
}

func (h *entryHeap[K]) Push(x any) {
	e := x.(*entry[K])
	e.index = len(h.of)
	h.of = append(h.of, e)
}

func (h *entryHeap[K]) Pop() any {
	last := len(h.of) - 1
	e := h.of[last]
	h.of[last] = nil
	h.of = h.of[:last]
	return e
}
