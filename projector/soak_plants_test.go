package projector

import (
	"strings"
	"testing"
	"time"
)

// quietLife is a history in which nothing is wrong: see TestSoakSees.
var quietLife = history{
	MaxInFlight: 4, Sweep: 6 * time.Hour, Longest: 48 * time.Hour,
	Events: []happening{
		{0, "config", "absent", 0, 0, 0},
		{1 * time.Hour, "pod", "access", 0, 0, 3607},
		{1 * time.Hour, "pod", "lone", 1, 0, 7200},
		{2 * time.Hour, "pod", "lone", 2, 0, 900},
		{5 * time.Hour, "config", "b", 0, 0, 0},
		{6 * time.Hour, "pod fails", "403", 1, 10 * time.Hour, 0},
		{30 * time.Hour, "restart", "now", 0, time.Second, 0},
		{40 * time.Hour, "end", "gone", 2, 0, 0},
		{60 * time.Hour, "server", "refused", 0, 10 * time.Minute, 0},
	},
}

// eachVolume plants in every volume that is known and has no job.
func eachVolume(plant func(*world, *volume)) func(*world) {
	return func(w *world) {
		for _, p := range w.s.pods {
			for _, v := range p.volumes {
				if v.known && !v.busy && !v.gone && !p.gone {
					plant(w, v)
				}
			}
		}
	}
}

// eachToken plants in every token that is on disk.
func eachToken(plant func(*world, *volume, *token)) func(*world) {
	return eachVolume(func(w *world, v *volume) {
		for i := range v.tokens {
			if t := &v.tokens[i]; !t.life.Expires.IsZero() {
				plant(w, v, t)
				w.s.plan(v, w.s.clock.Now(w.now))
			}
		}
	})
}

// eachPublish plants in the files of every publish that is under way.
func eachPublish(plant func(*world, *publishJob)) func(*world) {
	return func(w *world) {
		for _, f := range w.flights {
			if f.job.publish != nil && w.at > 10*time.Hour {
				plant(w, f.job.publish)
			}
		}
	}
}

// put has the publish write other bytes to a path.
func (j *publishJob) put(path, data string) {
	for i := range j.files {
		if f := &j.files[i]; f.Path == path {
			f.Keep, f.Data = nil, []byte(data)
		}
	}
}

// plants are what spoils quietLife, by what is then said to be wrong.
var plants = map[string]func(*world){
	"a token is refreshed late": eachToken(func(_ *world, _ *volume, t *token) { t.due = t.life.Limit().Add(5 * time.Minute) }),
	"a token expires": eachToken(func(w *world, v *volume, t *token) {
		t.due = t.life.Expires.Add(-time.Millisecond)
		w.token(v.key, t.source.Path).quiet = w.trueTime(t.life.Expires) - graceLost + time.Second
	}),
	"an expired token stays": eachToken(func(w *world, v *volume, t *token) {
		if t.err != nil {
			t.retryAt = w.s.clock.Now(w.now).Add(time.Hour) // though its failure ends
		}
	}),
	"a token is missing": eachVolume(func(w *world, v *volume) {
		if !v.whole {
			v.retryAt = w.s.now.Add(time.Hour)
			w.s.plan(v, w.s.now)
		}
	}),
	"a needless request": eachToken(func(w *world, _ *volume, t *token) { t.due, t.floor = w.s.now, w.s.now }),
	"minted again": eachVolume(func(w *world, v *volume) {
		if t := &v.tokens[0]; !t.fresh.empty() && t.life.Expires.IsZero() {
			t.fresh = Token{}
			w.s.examine(v, w.s.now)
			w.s.plan(v, w.s.now)
		}
	}),
	"a token on disk is damaged": func(w *world) {
		for _, p := range w.s.pods {
			for _, v := range p.volumes {
				if v.err != nil && v.err.Reason == ReasonTokenRequest {
					delete(w.files[v.key], "extra-token")
				}
			}
		}
	},
	"a swap removes":            eachPublish(func(_ *world, j *publishJob) { j.files = j.files[:len(j.files)-1] }),
	"a swap damages":            eachPublish(func(_ *world, j *publishJob) { j.put("ca.crt", "z") }),
	"is no token that was made": eachPublish(func(_ *world, j *publishJob) { j.put("extra-token", "z") }),
	"is a token for something else": eachPublish(func(w *world, j *publishJob) {
		for token, made := range w.minted {
			if made.request.PodUID != j.key.PodUID {
				j.put("extra-token", token)
			}
		}
	}),
	"is older than before": eachPublish(func(w *world, j *publishJob) {
		for token, made := range w.minted {
			if made.request.PodUID == j.key.PodUID && made.life.Issued.Before(w.server().Add(-20*time.Hour)) {
				j.put("extra-token", token)
			}
		}
	}),
	"has expired before it came": eachPublish(func(w *world, j *publishJob) {
		for _, f := range j.files {
			if made, ok := w.minted[string(f.Data)]; ok {
				made.life.Expires = w.server()
				w.minted[string(f.Data)] = made
			}
		}
	}),
	"a gone pod's files stay": func(w *world) {
		if w.at >= 40*time.Hour {
			w.files[extra(2)] = map[string]simFile{"extra-token": {}}
		}
	},
	"a live pod's": func(w *world) {
		if p := w.s.pods[uid(1)]; w.at > 10*time.Hour && p != nil && len(w.flights) == 0 && !p.removing {
			p.removing = true
			w.s.onDisk++
			w.flights = append(w.flights, flight{job: job{remove: &removeJob{p: p, uid: "uid-1"}}, at: w.at})
		}
	},
	"is forgotten":      eachVolume(func(w *world, v *volume) { w.look = true; w.s.mints.Remove(v); w.s.disks.Remove(v) }),
	"a token is logged": func(w *world) { w.s.log.Info(sign(nil)) },
	"idle, of at most":  func(w *world) { w.s.idle[uid(w.turns)] = true },
	"the owner is busy": eachVolume(func(w *world, v *volume) { v.verifyAt = w.s.now.Add(-time.Hour); w.s.plan(v, w.s.now) }),
	"has old versions at the end": func(w *world) {
		if w.at > historyLength {
			w.stale[extra(1)] = []string{"..1", "..2"}
		}
	},
	"has an old configMap at the end": func(w *world) {
		if w.at > historyLength+time.Minute {
			w.content = []byte("c")
		}
	},
	"is not ready at the end": eachVolume(func(w *world, v *volume) { v.detached = true }),
	"held, ": func(w *world) {
		if w.at > historyLength && !w.s.outage.Open() && w.s.onDisk == 0 {
			w.s.asked = []*mintJob{{v: &volume{busy: true}}}
			w.flying = []job{{mint: w.s.asked[0]}}
		}
	},
}

// TestSoakSees: each judge finds what is planted for it in a history that is in order.
func TestSoakSees(t *testing.T) {
	if w := play(t, quietLife, nil); w.wrong != "" {
		t.Fatalf("without a plant: after %v: %s", w.at, w.wrong)
	}
	for what, plant := range plants {
		if w := play(t, quietLife, plant); !strings.Contains(w.wrong, what) {
			t.Errorf("%s: not found, but %q after %v", what, w.wrong, w.at)
		}
	}
}
