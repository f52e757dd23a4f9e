package projector

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/atomicwriter"
)

// mounting has a container mount volumes: name, path pairs.
func mounting(pairs ...string) corev1.Container {
	var c corev1.Container
	for i := 0; i < len(pairs); i += 2 {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: pairs[i], MountPath: pairs[i+1]})
	}
	return c
}

// TestMountpoints: what is mounted below the volume, in any container, but not below another mount.
func TestMountpoints(t *testing.T) {
	for name, tt := range map[string]struct {
		containers []corev1.Container
		want       []string
	}{
		"none":          {[]corev1.Container{mounting("v", "/cfg", "other", "/other")}, nil},
		"not below":     {[]corev1.Container{mounting("v", "/cfg", "other", "/cfg-more", "other", "/cf")}, nil},
		"below":         {[]corev1.Container{mounting("v", "/cfg/", "other", "/cfg//a/b")}, []string{"a/b"}},
		"double":        {[]corev1.Container{mounting("v", "/d", "x", "/d/n/more", "y", "/d/n", "z", "/d/n-vol", "w", "/d/n2")}, []string{"n", "n-vol", "n2"}},
		"each its own":  {[]corev1.Container{mounting("v", "/a", "x", "/a/1"), mounting("v", "/b", "x", "/b/2", "x", "/a/3")}, []string{"1", "2"}},
		"twice":         {[]corev1.Container{mounting("v", "/a", "x", "/a/1"), mounting("v", "/b", "x", "/b/1")}, []string{"1"}},
		"another's":     {[]corev1.Container{mounting("other", "/a", "v", "/a/1")}, nil},
		"itself":        {[]corev1.Container{mounting("v", "/a", "v", "/a/1")}, []string{"1"}},
		"on a file":     {[]corev1.Container{mounting("v", "/a", "x", "/a/token", "y", "/a/token/deep")}, []string{"token"}},
		"reserved name": {[]corev1.Container{mounting("v", "/a", "x", "/a/..data")}, nil},
		"outside":       {[]corev1.Container{mounting("v", "/a", "x", "/a/../b")}, nil},
	} {
		v := desiredOne(t, func(p *corev1.Pod) { p.Spec.Containers = tt.containers }, tokenSource("", 600, "token"))
		if !slices.Equal(tt.want, v.Mountpoints) || v.Err != nil {
			t.Errorf("%s: %v, %q, want %q", name, v.Err, v.Mountpoints, tt.want)
		}
	}
	v := desiredOne(t, func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{mounting("v", "/a", "x", "/a/init")}
		debug := corev1.EphemeralContainer{}
		debug.VolumeMounts = mounting("v", "/a", "x", "/a/debug").VolumeMounts
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
	}, tokenSource("", 600, "token"))
	if diff := cmp.Diff([]string{"debug", "init"}, v.Mountpoints); diff != "" {
		t.Error(diff)
	}
}

// TestMountpointsOnDisk: they are directories as the volume's own; something in their place is reported, left alone,
// and keeps no file back.
func TestMountpointsOnDisk(t *testing.T) {
	dir := memoryDir(t)
	root := openTestRoot(t, dir)
	defer root.Close()
	d := disk{root: root}
	group := os.Getegid()
	job := &publishJob{key: extra(1), now: time.Unix(1e9, 0), mountpoints: []string{"a/b", "c"}, group: &group,
		files: []atomicwriter.File{{Path: "token", Data: []byte("t"), Mode: 0o644, Owner: new(root.owner())}}}
	if _, f := d.publish(job); f.err != nil || f.blocked != nil {
		t.Fatal(f.err, f.blocked)
	}
	for _, p := range []string{"", "a", "a/b", "c"} {
		if info, err := os.Lstat(filepath.Join(root.Path(extra(1)), p)); err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o755 {
			t.Errorf("%q: %v, %v", p, info.Mode(), err)
		}
	}
	reserved := *job // a key that appears in the place of a mount must not take it: that would detach the mount
	reserved.files = append(slices.Clone(job.files), atomicwriter.File{Path: "c/d", Mode: 0o644, Owner: new(root.owner())})
	if _, f := d.publish(&reserved); f.err != nil || f.blocked != nil {
		t.Fatal(f.err, f.blocked)
	}
	c := filepath.Join(root.Path(extra(1)), "c")
	if info, err := os.Lstat(c); err != nil || !info.IsDir() {
		t.Errorf("the mount's directory: %v, %v", info.Mode(), err)
	}
	if r, f := d.publish(&reserved); f.err != nil || r.Outcome != atomicwriter.Unchanged {
		t.Errorf("again: %v, %v", r.Outcome, f.err)
	}
	if err := errors.Join(os.Remove(c), os.Symlink("/etc", c)); err != nil {
		t.Fatal(err)
	}
	job.files[0].Data = []byte("new")
	r, f := d.publish(job)
	if f.err != nil || f.blocked == nil || r.Outcome != atomicwriter.Written {
		t.Errorf("%v: %v, reported %v", r.Outcome, f.err, f.blocked)
	}
	if target, err := os.Readlink(c); target != "/etc" {
		t.Errorf("the link is gone: %q, %v", target, err)
	}
}

// TestMountpointOfAnEphemeralContainer is made while the pod runs.
func TestMountpointOfAnEphemeralContainer(t *testing.T) {
	r := newRig(t)
	pod := lonePod(1, 86400)
	r.apply(pod)
	r.drain()
	debug := corev1.EphemeralContainer{}
	debug.VolumeMounts = mounting("extra", "/a", "x", "/a/debug").VolumeMounts
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
	r.apply(pod)
	r.turn()
	j := r.flight(isPublish)
	if diff := cmp.Diff([]string{"debug"}, j.publish.mountpoints); diff != "" {
		t.Error(diff)
	}
}

// TestReadyMeansMountpoints: a container may start when the directories for its mounts are there: after an
// ephemeral container was added, and after a restart during which it was.
func TestReadyMeansMountpoints(t *testing.T) {
	r := newRig(t)
	pod := lonePod(1, 86400)
	r.apply(pod)
	r.s.replace(r.wishes(), r.now)
	r.drain()
	debug := corev1.EphemeralContainer{}
	debug.VolumeMounts = mounting("extra", "/a", "x", "/a/debug").VolumeMounts
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
	r.apply(pod)
	if ready, _ := r.s.ready(pod.UID, r.server()); ready {
		t.Error("ready before its mount point is made")
	}
	next := r.restarted(time.Second)
	next.apply(pod)
	made := false
	for range 60 {
		for _, j := range next.turn() {
			made = made || j.publish != nil
		}
		for len(next.flying) > 0 {
			next.finish(next.flying[0])
		}
		next.pass(time.Second)
	}
	if ready, _ := next.s.ready(pod.UID, next.server()); ready && !made {
		t.Error("after a restart: ready for a minute, and no job has made the mount point")
	}
}

// TestMountpointsAreLeftAlone: a publish that finds the directories as they are to be changes nothing about them, not
// even for a moment: their watch would wake the next publish, for ever.
func TestMountpointsAreLeftAlone(t *testing.T) {
	root := openTestRoot(t, memoryDir(t))
	defer root.Close()
	d := disk{root: root}
	group := os.Getegid()
	job := &publishJob{key: extra(1), now: time.Unix(1e9, 0), mountpoints: []string{"a/b"}, group: &group}
	changed := func() map[string]unix.Timespec {
		times := make(map[string]unix.Timespec)
		for _, p := range []string{".", "a", "a/b"} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(root.Path(extra(1)), p), &st); err != nil {
				t.Fatal(err)
			}
			times[p] = st.Ctim
		}
		return times
	}
	publish := func() {
		if _, f := d.publish(job); f.err != nil || f.blocked != nil {
			t.Fatal(f.err, f.blocked)
		}
	}
	publish()
	planted := changed()
	for maps.Equal(planted, changed()) { // until the file system's clock has moved on, a change does not show
		if err := os.Chmod(filepath.Join(root.Path(extra(1)), "a"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	publish()
	if info, err := os.Stat(filepath.Join(root.Path(extra(1)), "a")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("not repaired: %v, %v", info.Mode(), err)
	}
	before := changed()
	for range 100 { // some of them in another tick of that clock
		publish()
	}
	if after := changed(); !maps.Equal(before, after) {
		t.Errorf("changed from %v to %v", before, after)
	}
}
