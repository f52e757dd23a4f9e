package fakeapi

import (
	"net/http"
	"time"

	"golang.org/x/time/rate"
)

// LimitTokenRequests is a fault of a server that is pressed: of the TokenRequests, it grants so many per second, up to a
// second's worth at once, and answers the others 429 with Retry-After: 1, as API Priority and Fairness does.
func LimitTokenRequests(perSecond int) Fault {
	limiter := rate.NewLimiter(rate.Limit(perSecond), perSecond)
	match := TokenRequests
	match.Func = func(*Request) bool { return !limiter.Allow() }
	return Fault{
		Match: match, Action: Fail, Code: http.StatusTooManyRequests, RetryAfter: time.Second,
		Message: "too many requests, please try again later",
	}
}
