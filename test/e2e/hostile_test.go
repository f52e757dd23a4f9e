//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

var aVersion = regexp.MustCompile(`^\.\.20\d\d_\d\d_\d\d_\d\d_\d\d_\d\d\.\d+$`)

// outside makes a tree that nobody may touch, beside the root.
func outside(t *testing.T, top, name string) string {
	t.Helper()
	dir := filepath.Join(top, "outside-"+name)
	check(t, os.MkdirAll(filepath.Join(dir, "dir"), 0o750))
	for _, file := range []string{"secret", "token", "dir/file"} {
		check(t, os.WriteFile(filepath.Join(dir, file), []byte("secret"), 0o640))
	}
	return dir
}

// owners describes a tree: inode numbers, modes, owners, times of change of content, contents.
func owners(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		check(t, syscall.Lstat(path, &st))
		data := []byte{}
		if e.Type().IsRegular() {
			data, err = os.ReadFile(path)
		}
		tree[path] = fmt.Sprint(st.Ino, st.Mode, st.Uid, st.Gid, st.Mtim, string(data))
		return err
	}))
	return tree
}

// grouped makes a pod whose files and directories belong to others: the daemon gives away all that it makes.
func (n *node) grouped(name string) (dir string) {
	n.t.Helper()
	pod, err := fakeapi.Create(n.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(user)), FSGroup: new(int64(group))},
			Volumes: []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "a", ExpirationSeconds: new(int64(7200)), Path: "token"}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
						Items: []corev1.KeyToPath{{Key: "config", Path: "config"}}}},
				},
			}}}},
		},
	})
	check(n.t, err)
	dir = filepath.Join(n.root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", "v")
	n.measure("the volume", n.published(filepath.Join(dir, "token")))
	return dir
}

func (n *node) settings(text string) {
	n.t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "settings"}, Data: map[string]string{"config": text}}
	_, err := fakeapi.Update(n.api, object)
	if err != nil {
		_, err = fakeapi.Create(n.api, object)
	}
	check(n.t, err)
}

// rootAttacks are what a privileged pod plants in its volume; undo ends them where only it can.
var rootAttacks = map[string]struct {
	plant func(dir, outside string) error
	undo  func(dir string) error
}{
	"a device": {func(dir, _ string) error {
		check := os.Remove(filepath.Join(dir, "token"))
		return firstError(check, unix.Mknod(filepath.Join(dir, "token"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))) // /dev/zero
	}, nil},
	"a device in the version": {func(dir, _ string) error {
		path := filepath.Join(dir, "..data/token")
		return firstError(os.Remove(path), unix.Mknod(path, unix.S_IFBLK|0o666, int(unix.Mkdev(7, 200))))
	}, nil},
	"a mount on the token": {func(dir, outside string) error {
		return unix.Mount(filepath.Join(outside, "secret"), filepath.Join(dir, "..data/token"), "", unix.MS_BIND, "")
	}, func(dir string) error { return unmountBelow(dir) }},
	"a mount on the version": {func(dir, outside string) error {
		return unix.Mount(outside, filepath.Join(dir, "..data/"), "", unix.MS_BIND, "")
	}, func(dir string) error { return unmountBelow(dir) }},
	"a mount in an old version": {func(dir, outside string) error {
		path := filepath.Join(dir, "..2020_01_01_00_00_00.1/mount")
		return firstError(os.MkdirAll(path, 0o755), unix.Mount(outside, path, "", unix.MS_BIND, ""))
	}, func(dir string) error { return unmountBelow(dir) }},
	"an immutable version": {func(dir, _ string) error {
		path, err := filepath.EvalSymlinks(filepath.Join(dir, "..data"))
		return firstError(err, os.WriteFile(filepath.Join(path, "token"), []byte("x"), 0o644), immutable(path, true))
	}, func(dir string) error {
		versions, err := filepath.Glob(filepath.Join(dir, "..20*"))
		for _, v := range versions {
			err = firstError(err, immutable(v, false))
		}
		return err
	}},
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

const immutableFlag = 0x10 // FS_IMMUTABLE_FL of linux/fs.h

// immutable sets or clears the flag of a directory, as chattr does.
func immutable(path string, on bool) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	flags, err := unix.IoctlGetInt(int(d.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	if flags &^= immutableFlag; on {
		flags |= immutableFlag
	}
	return unix.IoctlSetPointerInt(int(d.Fd()), unix.FS_IOC_SETFLAGS, flags)
}

// unmountBelow ends every mount below dir.
func unmountBelow(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mounts")
	for line := range bytes.Lines(mounts) {
		if fields := bytes.Fields(line); len(fields) > 1 && bytes.HasPrefix(fields[1], []byte(dir)) {
			err = firstError(err, unix.Unmount(string(fields[1]), unix.MNT_DETACH))
		}
	}
	return err
}

// removeCarelessly removes a directory by name, a mount of a tree outside in it and all, and wants that to be noticed.
func removeCarelessly(t *testing.T, top string) {
	t.Helper()
	careless := outside(t, top, "careless")
	before := owners(t, careless)
	sandbox := filepath.Join(top, "sandbox")
	check(t, os.MkdirAll(sandbox, 0o755))
	check(t, unix.Mount(careless, sandbox, "", unix.MS_BIND, ""))
	_ = os.RemoveAll(sandbox)
	if maps.Equal(owners(t, careless), before) {
		t.Error("a removal through a mount is not noticed")
	}
	check(t, unmountBelow(sandbox))
}

// TestHostileRoot: devices, bind mounts and immutable directories, which only root can plant, in volumes whose files the daemon gives away.
// Nothing outside changes, also when the pod goes while it is all there; other pods are served; the volume is whole when the pod lets go.
func TestHostileRoot(t *testing.T) {
	t.Parallel()
	top := daemontest.MemoryDir(t)
	n := newNode(t, filepath.Join(top, "root"))
	t.Cleanup(func() { unmountBelow(top) })
	n.settings("0")
	n.start()
	peace, changes := n.grouped("in-peace"), 0
	for name, a := range rootAttacks {
		removeCarelessly(t, top)
		changes++
		dir, canary := n.grouped(fmt.Sprint("attacked-", changes)), outside(t, top, fmt.Sprint(changes))
		before := owners(t, canary)
		check(t, a.plant(dir, canary))
		text := fmt.Sprint("change ", changes)
		n.settings(text)
		reads := func(dir string) func() bool {
			return func() bool { got, _ := os.ReadFile(filepath.Join(dir, "config")); return string(got) == text }
		}
		n.measure("the change where nothing is planted", reads(peace))
		if a.undo != nil {
			check(t, a.undo(dir))
		}
		n.measure(name+": the change where it was", reads(dir))
		n.measure(name+": the token", n.published(filepath.Join(dir, "token")))
		if after := owners(t, canary); !maps.Equal(after, before) {
			t.Errorf("%s: outside was changed:\n%v\n%v", name, before, after)
		}
		check(t, a.plant(dir, canary)) // and stays there when the pod goes
		pods, err := fakeapi.List[*corev1.Pod](n.api, "demo")
		check(t, err)
		for _, pod := range pods {
			if pod.Name == fmt.Sprint("attacked-", changes) {
				check(t, n.api.Delete(pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
			}
		}
		gone := func() bool { _, err := os.Lstat(dir); return os.IsNotExist(err) }
		if a.undo != nil {
			n.measure(name+": the removal fails", func() bool {
				return gone() || bytes.Contains([]byte(n.Output()), []byte("pod directory could not be removed"))
			})
			if !gone() {
				check(t, a.undo(dir))
			}
		}
		n.measure(name+": the pod's directory gone", gone)
		if after := owners(t, canary); !maps.Equal(after, before) {
			t.Errorf("%s: outside was changed by the removal:\n%v\n%v", name, before, after)
		}
		t.Log(name)
	}
	n.Terminate()
}

// TestGivenAway: a pod puts hard links to a file outside in the place of each new version and link, in a tight loop, while the
// daemon gives to the pod's user and group what it makes. Nothing outside gets another owner. A writer that chowns by name is caught.
func TestGivenAway(t *testing.T) {
	t.Parallel()
	top := daemontest.MemoryDir(t)
	n := newNode(t, filepath.Join(top, "root"))
	n.settings("0")
	n.start()
	canary := outside(t, top, "links")
	before := owners(t, canary)
	link := filepath.Join(top, "link")
	check(t, os.Link(filepath.Join(canary, "secret"), link))
	check(t, os.Lchown(link, user, group))
	if maps.Equal(owners(t, canary), before) {
		t.Fatal("a chown by name is not noticed")
	}
	check(t, os.Lchown(link, 0, 0))
	check(t, os.Remove(link))
	peace := n.grouped("in-peace")
	dirs := []string{n.grouped("a"), n.grouped("b"), n.grouped("c")}
	for _, dir := range dirs {
		check(t, os.Chown(dir, stranger, group)) // so that links are given away as well
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for _, dir := range dirs {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					replaceNew(dir, canary)
				}
			}
		})
	}
	for i := range 100 {
		text := fmt.Sprint("change ", i)
		n.settings(text)
		n.measure(text, func() bool { got, _ := os.ReadFile(filepath.Join(peace, "config")); return string(got) == text })
	}
	close(stop)
	running.Wait()
	if after := owners(t, canary); !maps.Equal(after, before) {
		t.Errorf("outside was changed:\n%v\n%v", before, after)
	}
	for _, dir := range dirs {
		n.measure("whole again", func() bool { got, _ := os.ReadFile(filepath.Join(dir, "config")); return string(got) == "change 99" })
	}
	n.Terminate()
}

// replaceNew puts hard links in the place of whatever the daemon has just made.
func replaceNew(dir, canary string) {
	current, _ := os.Readlink(filepath.Join(dir, "..data"))
	names, _ := os.ReadDir(dir)
	for _, e := range names {
		if aVersion.MatchString(e.Name()) && e.Name() != current || e.Name() == "..data_tmp" {
			path := filepath.Join(dir, e.Name())
			bad := filepath.Join(dir, "bad")
			_ = os.Link(filepath.Join(canary, "secret"), bad)
			_ = unix.Renameat2(unix.AT_FDCWD, bad, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
			_ = os.RemoveAll(bad)
		}
	}
}

// TestMillionFiles: a pod makes a million files in its version, and goes. Its volume is whole, others are served, and nothing is left of
// it afterwards.
func TestMillionFiles(t *testing.T) {
	t.Parallel()
	n := newNode(t, t.TempDir())
	check(t, unix.Mount("tmpfs", n.root, "tmpfs", 0, "nr_inodes=1100000")) // without it, a small machine has fewer
	t.Cleanup(func() { check(t, unix.Unmount(n.root, unix.MNT_DETACH)) })
	n.settings("0")
	n.start()
	peace, dir := n.grouped("in-peace"), n.grouped("attacker")
	version, err := filepath.EvalSymlinks(filepath.Join(dir, "..data"))
	check(t, err)
	many := filepath.Join(dir, "many")
	check(t, os.Mkdir(many, 0o755))
	for i := range 1_000_000 {
		fd, err := unix.Open(fmt.Sprint(many, "/", i), unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		check(t, err)
		unix.Close(fd)
	}
	check(t, os.Rename(many, filepath.Join(version, "many")))
	n.settings("1")
	for _, d := range []string{peace, dir} {
		n.measure("the change", func() bool { got, _ := os.ReadFile(filepath.Join(d, "config")); return string(got) == "1" })
	}
	took := n.measure("the files gone", func() bool { _, err := os.Lstat(version); return os.IsNotExist(err) })
	t.Logf("a million files are gone %v after the change", took)
	n.Terminate()
}
