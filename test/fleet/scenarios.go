package main

import (
	"math/rand/v2"
	"time"
)

// An hour's token as admission injects it, and what it makes of 80 %.
const lifetime = 3607 * time.Second

// scenarios of a fleet of that size. What happens, happens after half of the run.
func scenarios(nodes, pods int, length time.Duration) []scenario {
	base := scenario{
		nodes: nodes, pods: pods, created: time.Minute, length: length, ttl: lifetime,
		server: server{perSecond: float64(pods), waiting: pods, latency: 5 * time.Millisecond},
	}
	mean := float64(pods) / (lifetime.Seconds() * 0.8)
	half := length / 2
	scaleUp, restarted, rolling, out, pressed, brief := base, base, base, base, base, base
	scaleUp.name, scaleUp.about = "scale-up", "all pods are created in one minute"
	restarted.name, restarted.about = "restart", "then all daemons start anew at once"
	restarted.event, restarted.restart = half, true
	rolling.name, rolling.about = "rolling", "then the daemons start anew, one after another within an hour"
	rolling.event, rolling.restart, rolling.rolling = half, true, time.Hour
	out.name, out.about = "outage", "then the server is out for ten minutes; it answers ten times the mean rate"
	out.event, out.server.outFrom, out.server.outUntil = half, half, half+10*time.Minute
	out.server.perSecond, out.server.waiting = 10*mean, max(1, int(10*mean))
	out.created = 10 * time.Minute
	pressed.name, pressed.about = "pressed", "all pods are created in one minute, and the server answers ten times the mean rate"
	pressed.server.perSecond, pressed.server.waiting = out.server.perSecond, out.server.waiting
	brief.name, brief.about = "short-lived", "pods live ten minutes in the mean, and are replaced at once"
	brief.lives = 10 * time.Minute
	return []scenario{scaleUp, restarted, rolling, out, pressed, brief}
}

// rules are played beside each other.
var rules = []struct {
	name string
	new  func(*rand.Rand) rule
}{
	{"kubelet", func(r *rand.Rand) rule { return &kubelet{r} }},
	{"daemon", func(*rand.Rand) rule { return ours{} }},
}
