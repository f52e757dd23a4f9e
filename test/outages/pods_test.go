//go:build outages

package outages

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestLag prints how soon a pod has its token once its node may request it: the Node authorizer learns of a pod a
// little later than the node does, and until then the answer is 403.
func TestLag(t *testing.T) {
	t.Parallel()
	const each = 10
	n := newNode(t, 10, false)
	rows := []string{"| 403 until | s from then to the token: median, most | requests per pod |\n|---|---|---|"}
	for _, lag := range []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second} {
		n.api.ForgetRequests()
		permitted, published := make([]chan time.Time, each), make([]<-chan time.Time, each)
		for i := range each {
			name := fmt.Sprintf("lag-%v-%d", lag.Milliseconds(), i)
			m := fakeapi.TokenRequests
			m.Name = name
			remove := n.api.Inject(fakeapi.Fault{Match: m, Action: fakeapi.Fail, Code: 403})
			published[i] = n.published(n.createAs("default", name, name))
			permitted[i] = make(chan time.Time, 1)
			time.AfterFunc(lag, func() {
				permitted[i] <- time.Now()
				remove()
			})
			time.Sleep(100 * time.Millisecond) // they come one by one, and not all at once
		}
		var delays []time.Duration
		for i := range each {
			delays = append(delays, n.await(published[i]).Sub(<-permitted[i]))
		}
		slices.Sort(delays)
		asked := n.api.Requests(fakeapi.Match{Verb: "create", Resource: "serviceaccounts", Func: func(r *fakeapi.Request) bool {
			return strings.HasPrefix(r.Name, "lag-")
		}})
		rows = append(rows, fmt.Sprintf("| %v | %.2f, %.2f | %.1f |", lag, delays[each/2].Seconds(), delays[each-1].Seconds(), float64(len(asked))/each))
		if worst := delays[each-1]; worst > lag+soon/2 { // the pauses double
			t.Errorf("403 for %v: a pod waits another %v", lag, worst)
		}
	}
	fmt.Println(strings.Join(rows, "\n"))
}

// TestRefusedPods prints what pods whose every request is refused cost, beside others whose requests are granted.
func TestRefusedPods(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	rows := []string{"| of ten pods refused beside 100 granted | requests per refused pod in each minute | most that a granted token was late, s | granted, and seen expired |\n|---|---|---|---|"}
	t.Run("of", func(t *testing.T) {
		for name, f := range map[string]fakeapi.Fault{
			"403, the namespace terminates": {Code: 403, Message: terminating},
			"404":                           {Code: 404},
			"409":                           {Code: 409},
			"422":                           {Code: 422},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				row := refused(t, f)
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, fmt.Sprintf("| %s | %s |", name, row))
			})
		}
	})
	fmt.Println(strings.Join(rows, "\n"))
}

func refused(t *testing.T, f fakeapi.Fault) string {
	const refused = 10
	f.Action, f.Match = fakeapi.Fail, fakeapi.TokenRequests
	f.Match.Namespace = "refused"
	n := newNode(t, 100, false)
	n.api.Inject(f)
	for i := range refused {
		n.createAs("refused", fmt.Sprintf("refused-%d", i), "")
	}
	late, expired := time.Duration(0), 0
	var asked []string
	for began := time.Now(); len(asked) < int(length.Minutes()); {
		time.Sleep(time.Second)
		expired = max(expired, n.expired())
		late = max(late, n.late())
		if time.Since(began) > time.Duration(len(asked)+1)*time.Minute {
			asked = append(asked, fmt.Sprintf("%.1f", float64(len(n.api.Requests(f.Match)))/refused))
			n.api.ForgetRequests()
		}
	}
	if expired > 0 || late > soon {
		t.Errorf("of those that are granted %d expired, and one was late by %v", expired, late)
	}
	return fmt.Sprintf("%s | %.2f | %d", strings.Join(asked, ", "), late.Seconds(), expired)
}

// late is how long the latest of the tokens should have been renewed by now.
func (n *node) late() (late time.Duration) {
	n.t.Helper()
	for _, pod := range n.pods {
		if c, err := n.claims(pod); err != nil {
			n.t.Error(err)
		} else {
			late = max(late, time.Since(c.Lifetime.Limit()))
		}
	}
	return late
}
