package rotation

import (
	"fmt"
	"testing"
	"time"
)

var sizes = []int{100, 1_000, 10_000, 100_000, 1_000_000}

// filled holds n keys that are due over the hour that follows the epoch.
func filled(n int) *Queue[int] {
	var q Queue[int]
	for i := range n {
		at := scattered(i)
		q.Set(i, at, at.Add(12*time.Minute))
	}
	return &q
}

func scattered(i int) time.Time {
	return epoch.Add(time.Duration(uint64(i)*0x9e3779b97f4a7c15%uint64(time.Hour)) + 1)
}

// BenchmarkQueueSet moves one key of a full queue, later or earlier.
func BenchmarkQueueSet(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("held=%d", n), func(b *testing.B) {
			q, i := filled(n), 0
			b.ReportAllocs()
			for b.Loop() {
				at := scattered(i * 31)
				q.Set(i%n, at, at.Add(12*time.Minute))
				i++
			}
		})
	}
}

// BenchmarkQueueRotate pops the next key that is due and puts it back, due in
// an hour: what the owner does for each refresh.
func BenchmarkQueueRotate(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("held=%d", n), func(b *testing.B) {
			q := filled(n)
			b.ReportAllocs()
			now := epoch
			for b.Loop() {
				now, _ = q.Next(now)
				k, ok := q.Pop(now)
				if !ok {
					b.Fatal("nothing due at Next")
				}
				q.Set(k, now.Add(time.Hour), now.Add(72*time.Minute))
			}
		})
	}
}

// BenchmarkQueueRemove takes one key out of a full queue and puts it back.
func BenchmarkQueueRemove(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("held=%d", n), func(b *testing.B) {
			q, i := filled(n), 0
			b.ReportAllocs()
			for b.Loop() {
				q.Remove(i % n)
				at := scattered(i)
				q.Set(i%n, at, at)
				i++
			}
		})
	}
}

// BenchmarkQueueIdle asks a full queue of which nothing is due.
func BenchmarkQueueIdle(b *testing.B) {
	q := filled(1_000_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := q.Pop(epoch); ok {
			b.Fatal("something is due")
		}
	}
}

func BenchmarkDue(b *testing.B) {
	l, s := lifetime(3607*time.Second), NewSeed("uid", "volume", "token")
	b.ReportAllocs()
	for b.Loop() {
		if l.Due(s, true).After(l.Limit()) {
			b.Fatal("due after the limit")
		}
	}
}
