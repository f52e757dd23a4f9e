package projector

import (
	"slices"
	"time"
)

// minimise drops events from a history for as long as fails, which plays it,
// still says true: halves first, then ever smaller parts, down to single ones
// (Zeller's delta debugging). It ends by the deadline, with the best so far.
func minimise(h history, fails func(history) bool, deadline time.Time) history {
	for size := max(len(h.Events)/2, 1); ; {
		dropped := false
		for from := 0; from < len(h.Events) && time.Now().Before(deadline); {
			shorter := h
			shorter.Events = slices.Delete(slices.Clone(h.Events), from, min(from+size, len(h.Events)))
			if fails(shorter) {
				h, dropped = shorter, true
			} else {
				from += size
			}
		}
		switch {
		case !time.Now().Before(deadline), size == 1 && !dropped:
			return h
		case !dropped:
			size /= 2
		}
		size = max(min(size, len(h.Events)/2), 1)
	}
}
