package main

import "time"

// server is an API server of fixed capacity.
type server struct {
	perSecond float64       // requests that it answers in a second
	waiting   int           // requests that may wait; one more is refused with 429
	latency   time.Duration // of an answer beside the waiting
	outFrom   time.Duration // it answers everything with 503 in [outFrom, outUntil)
	outUntil  time.Duration

	free float64 // seconds: when it has answered all that it has taken
}

// answer is what a client sees of one request.
type answer struct {
	at         time.Duration // when the client has it, or gives up
	ok         bool
	retryAfter time.Duration
}

// giveUp is how long the daemon waits for an answer (projector.requestTimeout).
const giveUp = 10 * time.Second

// retryAfter is what a kube-apiserver asks for with its 429 (apiserver/pkg/server/filters).
const retryAfter = time.Second

func (s *server) ask(now time.Duration, patience time.Duration) answer {
	t := now.Seconds()
	if now >= s.outFrom && now < s.outUntil {
		return answer{at: now + s.latency}
	}
	s.free = max(s.free, t)
	if (s.free-t)*s.perSecond >= float64(s.waiting) {
		return answer{at: now + s.latency, retryAfter: retryAfter}
	}
	s.free += 1 / s.perSecond
	done := time.Duration(s.free*float64(time.Second)) + s.latency
	if done-now > patience {
		return answer{at: now + patience}
	}
	return answer{at: done, ok: true}
}
