package main

import (
	"math/bits"
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

// calendar holds the events of each second of a run, and those of the second that is played by their milliseconds, so that
// millions of them cost neither a heap nor a sort.
type calendar struct {
	seconds [][]event
	now     int                                     // the second that is being played; -1: none yet
	today   [time.Second / time.Millisecond][]event // its events, by millisecond, each in the order in which they were planned
	busy    [16]uint64                              // which milliseconds have any
	at      int                                     // the millisecond that is being played
	next    int                                     // of its events, the next one
}

func newCalendar(length time.Duration) *calendar {
	return &calendar{seconds: make([][]event, int(length/time.Second)), now: -1}
}

// add plans an event; one that lies after the end is dropped. No event may be planned for a time that has been played.
func (c *calendar) add(at time.Duration, e event) {
	second := int(at / time.Second)
	if second >= len(c.seconds) {
		return
	}
	e.at = int32(at % time.Second / time.Millisecond)
	if second > c.now {
		c.seconds[second] = append(c.seconds[second], e)
		return
	}
	c.plan(e)
}

// plan adds an event of the second that is played.
func (c *calendar) plan(e event) {
	c.today[e.at] = append(c.today[e.at], e)
	c.busy[e.at/64] |= 1 << (e.at % 64)
}

// pop returns the next event and its time.
func (c *calendar) pop() (e event, at time.Duration, ok bool) {
	for c.next == len(c.today[c.at]) {
		c.today[c.at], c.next = c.today[c.at][:0], 0
		c.busy[c.at/64] &^= 1 << (c.at % 64)
		if c.seek() {
			break
		}
		if c.now++; c.now >= len(c.seconds) {
			return event{}, 0, false
		}
		for _, e := range c.seconds[c.now] {
			c.plan(e)
		}
		c.seconds[c.now], c.at = nil, 0
	}
	e = c.today[c.at][c.next]
	c.next++
	return e, time.Duration(c.now)*time.Second + time.Duration(e.at)*time.Millisecond, true
}

// seek goes to the next millisecond that has events, if there is any in this second.
func (c *calendar) seek() bool {
	for i, word := range c.busy {
		if word != 0 {
			c.at = 64*i + bits.TrailingZeros64(word)
			return true
		}
	}
	return false
}
