//go:build e2e

package conformance

import (
	"errors"
	"maps"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// A kubelet's TokenRequest gets no answer, as in kubernetes/kubernetes#138689: the token expires, and the kubelet says nothing. The overlay
// observe, which was there before the pod, says first that the refresh is late, while the token is still good, and then that it has
// expired; and its alerts fire. Nothing of it happens before the fault, or after it.
//
// No token lives for less than ten minutes. The kubelet's refresh is due after eight, and up to 91 s late: so the grace, of two minutes for
// those of an hour, is 100 s here.
func TestWatchedKubelet(t *testing.T) {
	const nodeName, grace = "node-watched", 100 * time.Second
	config, err := plane.Node(nodeName)
	if err != nil {
		t.Fatal(err)
	}
	proxy := startProxy(t, config)
	kubelet := startKubelet(t, nodeName, proxy.node)
	createNamespace(t, nodeName)
	pods := filepath.Join(kubelet.root, "pods")
	seeing := overlayPod(t, "observe", nodeName)
	blind := overlayPod(t, "observe", nodeName)
	blind.Spec.Containers[0].VolumeMounts[0].MountPropagation = nil
	r := record(t, startCommand(t, t, inSandbox(t, seeing, pods, "", plane, "--grace="+grace.String())))
	unseeing := startInSandbox(t, blind, pods, "")

	pod := createPod(t, watchedPod(nodeName))
	kubelet.awaitRunning(t, pod)
	token := filepath.Join(volumeDir(kubelet.root, pod, vaultVolume), vaultFile)
	wantMode(t, token, 0o600, vaultUser, 0)
	r.until(t, patience, "both tokens are fresh", func(s scrape) bool { return s[fresh] == 2 })
	// Without propagation the volumes are empty directories, for ever.
	eventually(t, func() error {
		return errors.Join(unseeing.wantMetric(2, "token_projector_tokens", "state", "pending"), unseeing.wantMetric(0, "token_projector_tokens", "state", "fresh"))
	})
	before := readToken(t, filepath.Dir(token), vaultFile)
	if got := proxy.held.Load(); got != 0 {
		t.Fatalf("%d requests held before the fault", got)
	}
	proxy.hold()
	w := &incident{recording: r, proxy: proxy}
	w.fault(t, grace)
	if got := readToken(t, filepath.Dir(token), vaultFile); got != before {
		t.Error("the kubelet had a new token, and was given none")
	}
	proxy.lift()
	r.until(t, 2*patience, "both tokens are fresh again", func(s scrape) bool { return s[fresh] == 2 && s[overdue] == 0 })
	after := readToken(t, filepath.Dir(token), vaultFile)
	if after == before {
		t.Error("the token is the old one")
	}
	w.alerts(t)
	wantNoLeak(t, r.of.logFile, []string{before, after})
}

// watchedPod mounts a token of ten minutes that only its user may read.
func watchedPod(nodeName string) *corev1.Pod {
	pod := newPod(nodeName, "watched", appAccount, nodeName, vault(600))
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: vaultVolume, MountPath: besideMount, ReadOnly: true}}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](vaultUser)}
	return pod
}

// incident is a kubelet's fault as it is seen. The indexes are of scrapes.
type incident struct {
	*recording
	proxy                     *holdingProxy
	late, stale, expired, end int
}

func (w *incident) last() int { return len(w.scrapes) - 1 }

// fault sees a token through, from fresh to a minute past its expiry.
func (w *incident) fault(t *testing.T, grace time.Duration) {
	t.Helper()
	w.until(t, 10*time.Minute, "the refresh is late", func(s scrape) bool {
		if s[overdue] == 0 && s[fresh] != 2 {
			t.Errorf("before the refresh is due: %v", s)
		}
		return s[overdue] > 0
	})
	w.late = w.last()
	at := w.until(t, 2*grace, "a token is stale", func(s scrape) bool { return s[stale] == 1 })
	w.stale = w.last()
	s := w.scrapes[w.stale]
	left := time.Duration(s[expiry]*float64(time.Second)) - at
	if t.Logf("%v before its expiry, and %v overdue", left.Round(time.Second), s[overdue]); s[expired] != 0 || left <= 0 || s[overdue] < grace.Seconds() {
		t.Errorf("stale %v before its expiry: %v", left, s)
	}
	w.until(t, grace, "it has expired", func(s scrape) bool { return s[expired] == 1 && s[stale] == 0 })
	w.expired = w.last()
	const more = int(70 * time.Second / scrapeInterval) // the alert waits for a minute
	w.until(t, 2*patience, "it still is", func(s scrape) bool {
		if s[expired] != 1 {
			t.Errorf("after its expiry: %v", s)
		}
		return w.last() >= w.expired+more
	})
	w.end = w.last()
	if got := w.proxy.held.Load(); got != 1 {
		t.Errorf("the kubelet has asked %d times, want once and to wait", got)
	}
}

// alerts judges what the shipped alerts make of it: silence until the refresh is late beyond its grace, then, as long as they must wait,
// first of the stale and then of the expired token.
func (w *incident) alerts(t *testing.T) {
	t.Helper()
	const onStale, onExpired = "TokenProjectorTokenStale", "TokenProjectorTokenExpired"
	firing := alerted{w.end, "firing", []string{onExpired}}
	if err := w.judge(t,
		alerted{w.late, "pending", nil}, alerted{w.late, "firing", nil},
		alerted{w.stale, "pending", []string{onStale}}, alerted{w.stale, "firing", nil},
		alerted{w.expired, "pending", []string{onExpired}},
		firing, alerted{w.end, "pending", nil},
		alerted{w.last(), "pending", nil}, alerted{w.last(), "firing", nil},
	); err != nil {
		t.Error(err)
	}
	healthy := &recording{}
	for _, s := range w.scrapes {
		s = maps.Clone(s)
		s[expired] = 0
		healthy.scrapes = append(healthy.scrapes, s)
	}
	if err := healthy.judge(t, firing); err == nil {
		t.Error("an alert that does not fire is not noticed")
	}
}
