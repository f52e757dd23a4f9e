package main

import (
	"slices"
	"time"
)

// event is something that happens to a token, or to a node if it has none.
type event struct {
	at    int32 // milliseconds into its second
	what  kind
	node  uint32
	token uint32
	pod   uint32        // which of the token's pods it is about
	run   uint32        // of an answer: which start of the node asked
	sent  time.Duration // of an answer: when it was asked for
	after time.Duration // of a refusal: its Retry-After
}

type kind uint8

const (
	due      kind = iota // the token is to be asked for
	again                // and once more
	granted              // the answer is a token
	failed               // the answer is a failure, or there is none
	wake                 // the node may send its next probe
	restart              // the node's daemon starts anew
	podEnded             // the token's pod is gone
)

// calendar holds the events of each second of a run, so that millions of them cost no heap.
type calendar struct {
	seconds [][]event
	now     int     // the second that is being played
	today   []event // its events, sorted; those before next have been played
	next    int
}

func newCalendar(length time.Duration) *calendar {
	return &calendar{seconds: make([][]event, int(length/time.Second))}
}

// add plans an event; one that lies after the end is dropped.
func (c *calendar) add(at time.Duration, e event) {
	second := int(at / time.Second)
	if second >= len(c.seconds) {
		return
	}
	e.at = int32(at % time.Second / time.Millisecond)
	if second > c.now || c.today == nil {
		c.seconds[second] = append(c.seconds[second], e)
		return
	}
	i, _ := slices.BinarySearchFunc(c.today[c.next:], e, func(a, b event) int { // after its equals
		if a.at <= b.at {
			return -1
		}
		return 1
	})
	c.today = slices.Insert(c.today, c.next+i, e)
}

// pop returns the next event and its time.
func (c *calendar) pop() (e event, at time.Duration, ok bool) {
	for c.today == nil || c.next == len(c.today) {
		if c.today != nil {
			c.seconds[c.now] = nil
			c.now++
		}
		if c.now >= len(c.seconds) {
			return event{}, 0, false
		}
		c.today, c.next = c.seconds[c.now], 0
		if c.today == nil {
			c.today = []event{}
		}
		slices.SortStableFunc(c.today, func(a, b event) int { return int(a.at - b.at) })
	}
	e = c.today[c.next]
	c.next++
	return e, time.Duration(c.now)*time.Second + time.Duration(e.at)*time.Millisecond, true
}
