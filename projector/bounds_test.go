package projector

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/atomicwriter"
)

// TestDesiredBounds: what no version can hold is refused before a token is asked for, and so is what no API server lets through
// and no file can have. One thing less is projected.
func TestDesiredBounds(t *testing.T) {
	tokens := func(n int) []corev1.VolumeProjection {
		var sources []corev1.VolumeProjection
		for i := range n {
			sources = append(sources, tokenSource("a", 600, fmt.Sprint("t", i)))
		}
		return sources
	}
	items := func(n int) []corev1.VolumeProjection {
		var all []corev1.KeyToPath
		for i := range n {
			all = append(all, corev1.KeyToPath{Key: "k", Path: fmt.Sprint("i", i)})
		}
		return append(tokens(1), corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: all}})
	}
	moded := func(mode int32) []corev1.VolumeProjection {
		sources := items(1)
		sources[1].ConfigMap.Items[0].Mode = &mode
		return sources
	}
	nameless := items(0)
	nameless[1].ConfigMap.Name = ""
	for name, tt := range map[string]struct {
		mode    int32
		sources []corev1.VolumeProjection
		valid   bool
	}{
		"as many tokens as fit":  {0o644, tokens(atomicwriter.MaxFiles), true},
		"one too many":           {0o644, tokens(atomicwriter.MaxFiles + 1), false},
		"as many items as fit":   {0o644, items(atomicwriter.MaxFiles - 1), true},
		"one item too many":      {0o644, items(atomicwriter.MaxFiles), false},
		"the greatest mode":      {0o777, tokens(1), true},
		"a negative mode":        {-1, tokens(1), false},
		"a setuid mode":          {0o4755, tokens(1), false},
		"an item's":              {0o644, moded(0o400), true},
		"an item's negative":     {0o644, moded(-1), false},
		"an item's setgid":       {0o644, moded(0o2644), false},
		"a configMap of no name": {0o644, nameless, false},
	} {
		pod := testPod(1, "", 0)
		v := projected("v", tt.sources...)
		v.Projected.DefaultMode = &tt.mode
		pod.Spec.Volumes = []corev1.Volume{v}
		got := Desired(pod, SelectAll).Volumes
		if len(got) != 1 || (got[0].Err == nil) != tt.valid || !tt.valid && got[0].Err.Reason != ReasonInvalid {
			t.Errorf("%s: %d volumes, %v", name, len(got), got[0].Err)
		}
	}
}

// TestVolumeNames: a wish, whoever made it, names directories beside one another.
func TestVolumeNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../v", "v/../../x", "a/b", "/v", "v\x00", strings.Repeat("v", 256)} {
		r := newRig(t)
		r.s.synced = true
		w := Desired(testPod(1, "a", 600), SelectAll)
		w.Volumes = w.Volumes[:1]
		w.Volumes[0].Name = name
		r.s.apply(w, r.now)
		r.drain()
		if len(r.requests) > 0 || len(r.files) > 0 {
			t.Errorf("%q: %d requests, %d volumes on disk", name, len(r.requests), len(r.files))
		}
		if v := r.s.pods[w.UID].volumes.find(name); v == nil || v.err == nil || v.err.Reason != ReasonInvalid {
			t.Errorf("%q is no error", name)
		}
	}
}
