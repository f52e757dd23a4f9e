package main

import (
	"math/rand/v2"
	"time"

	"github.com/token-projector/token-projector/rotation"
)

// epoch is when a run begins; rotation's hashes take times of issue.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(t time.Duration) time.Time { return epoch.Add(t) }

// token is one token of one pod.
type token struct {
	node   uint32
	wide   bool          // the one that it has is its first, or came late
	pod    uint32        // counts the pods that took each other's place
	have   bool          // it has one
	born   time.Duration // its pod
	issued time.Duration // of the one that it has
	failed uint8         // requests for its successor, in a row, of those that were refused alone
	due    time.Duration // since when it has been asked for
}

// rule says when a token is asked for again.
type rule interface {
	// refresh is when a token that was issued just now is due.
	refresh(id uint32, t *token, ttl time.Duration) time.Duration
	// adopt is when a token that a starting daemon finds is due; immediately if it keeps none.
	adopt(id uint32, t *token, ttl, now time.Duration) time.Duration
	// fail takes in a failure of the node's request, and says when it is sent again, if the token is retried for itself.
	fail(n *node, e event, t *token, ttl, now time.Duration) (at time.Duration, alone bool)
	// patience is how long it waits for an answer.
	patience() time.Duration
	// pace is how soon after now the node may send its next request: the limit of a client's rate.
	pace(n *node, now time.Duration) time.Duration
}

// ours is the daemon's rule.
type ours struct{}

func life(t *token, ttl time.Duration) rotation.Lifetime {
	return rotation.Lifetime{Issued: at(t.issued), Expires: at(t.issued + ttl)}
}

// seed stands for rotation.NewSeed of a token's pod, volume and path: as random, and the same in each run.
func seed(id uint32) rotation.Seed {
	x := uint64(id) + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return rotation.Seed(x ^ x>>31)
}

func (ours) refresh(id uint32, t *token, ttl time.Duration) time.Duration {
	return life(t, ttl).Due(seed(id), t.wide).Sub(epoch)
}

func (ours) adopt(id uint32, t *token, ttl, now time.Duration) time.Duration {
	l := life(t, ttl)
	t.wide = l.First(at(t.born))
	return max(now, l.DueAdopted(seed(id), t.wide, at(now)).Sub(epoch))
}

// fail: what projector does with a failure.
func (ours) fail(n *node, e event, t *token, ttl, now time.Duration) (time.Duration, bool) {
	wasOpen := n.outage.Open()
	pressed := e.after > 0 && n.outage.Pressed(now, int(t.failed))
	switch {
	case pressed:
		n.pace.Refused(e.sent, now)
	case n.outage.Failed(e.sent, now, e.after, false):
		if !wasOpen {
			n.pace.Lift()
		}
		return 0, false
	}
	var left time.Duration
	if t.have {
		left = t.issued + ttl - now
	}
	return now + max(rotation.Backoff(seed(e.token), int(t.failed)+1, left), e.after), true
}

func (ours) patience() time.Duration                       { return giveUp }
func (ours) pace(_ *node, now time.Duration) time.Duration { return now }

// kubelet is the kubelet's rule (pkg/kubelet/token/token_manager.go, pkg/kubelet/kubelet.go): at a pod's sync, every 60 to
// 90 s, a token is asked for whose age has passed 80 % of its lifetime, or 24 hours, less up to 9 s that are drawn each time.
type kubelet struct{ random *rand.Rand }

// Of the node's client to the API server, by default.
const (
	kubeletQPS   = 50
	kubeletBurst = 100
)

// sync is the time to a pod's next sync, as seen at a random moment: long intervals are met more often than short ones.
func (k *kubelet) sync() time.Duration {
	for {
		interval := 60 + 30*k.random.Float64()
		if k.random.Float64()*90 < interval {
			return time.Duration(k.random.Float64() * interval * float64(time.Second))
		}
	}
}

func (k *kubelet) refresh(_ uint32, t *token, ttl time.Duration) time.Duration {
	jitter := time.Duration(k.random.IntN(10)) * time.Second
	return t.issued + min(ttl-ttl/5, 24*time.Hour) - jitter + k.sync()
}

func (k *kubelet) adopt(_ uint32, _ *token, _, now time.Duration) time.Duration { return now }

func (k *kubelet) fail(_ *node, _ event, _ *token, _, now time.Duration) (time.Duration, bool) {
	return now + k.sync(), true
}

// patience: none of its requests has a time-out but the server's own of a minute.
func (k *kubelet) patience() time.Duration { return time.Minute }

func (k *kubelet) pace(n *node, now time.Duration) time.Duration {
	n.tokens = min(kubeletBurst, n.tokens+(now-n.filled).Seconds()*kubeletQPS)
	n.filled = now
	if n.tokens >= 1 {
		n.tokens--
		return now
	}
	wait := time.Duration((1 - n.tokens) / kubeletQPS * float64(time.Second))
	return now + max(wait, time.Millisecond)
}
