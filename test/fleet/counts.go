package main

import "time"

// counts are what a run is judged by.
type counts struct {
	requests []int32 // in each second
	failures int     // requests that were refused, or given up
	firsts   int     // tokens of new pods
	pods     int     // that ended
	renewed  int
	last     time.Duration // when the last token of the pods that were there from the start came
	expired  int           // tokens that had expired when their successor came
	stale    time.Duration // the longest time that one had
	late     time.Duration // the longest time from due to there
}

func (c *counts) request(now time.Duration) { c.requests[now/time.Second]++ }

func (c *counts) refreshed(now, due, expires time.Duration) {
	c.renewed++
	c.late = max(c.late, now-due)
	if now > expires {
		c.expired++
		c.stale = max(c.stale, now-expires)
	}
}

// total is the number of requests in [from, until).
func (c *counts) total(from, until time.Duration) int {
	n := 0
	for _, r := range c.requests[from/time.Second : until/time.Second] {
		n += int(r)
	}
	return n
}

// peak is the highest rate, in requests a second, over any window of the given whole seconds in [from, until).
func (c *counts) peak(from, until time.Duration, window int) float64 {
	best, sum := 0, 0
	span := c.requests[from/time.Second : until/time.Second]
	for i, r := range span {
		sum += int(r)
		if i >= window {
			sum -= int(span[i-window])
		}
		if i >= window-1 {
			best = max(best, sum)
		}
	}
	return float64(best) / float64(window)
}

// mean is the rate over [from, until).
func (c *counts) mean(from, until time.Duration) float64 {
	return float64(c.total(from, until)) / (until - from).Seconds()
}
