package atomicwriter

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The benchmarks publish a volume of 3 files as the kubelet's is: a token and a ca.crt of 1.1 KiB each and
// a namespace. Each operation includes the confined Open of the volume directory from its pod's, and its
// Close. Sweeping the old version is measured apart, as it happens later.
// PublishTable in test/conformance/kubelet has the kubelet's beside it, and the system calls.

// benchDir is a directory in memory if there is one.
func benchDir(b *testing.B) string {
	var st unix.Statfs_t
	if unix.Statfs("/dev/shm", &st) != nil || st.Type != unix.TMPFS_MAGIC {
		b.Log("/dev/shm is no tmpfs; measuring in", os.TempDir())
		return b.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "atomicwriter-bench-")
	check(b, err)
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// benchFiles is the volume with the n-th token.
func benchFiles(n int) []File {
	token := bytes.Repeat([]byte{'t'}, 1126)
	for i := range 8 {
		token[i] = byte('0' + n>>(4*i)&15)
	}
	return []File{
		{Path: "token", Data: token, Mode: 0o644},
		{Path: "ca.crt", Data: bytes.Repeat([]byte{'c'}, 1126), Mode: 0o644},
		{Path: "namespace", Data: []byte("default"), Mode: 0o644},
	}
}

// benchPod is an open pod directory with a volume in it.
func benchPod(b *testing.B) *Dir {
	root := must(OpenRoot(benchDir(b)))(b)
	defer root.Close()
	pod := must(root.Mkdir("pods/1a4dfd8c-3f5a-4a1f-8f0e-6b3c1d2e4f50", 0o700))(b)
	b.Cleanup(func() { pod.Close() })
	return pod
}

const benchVolume = "volumes/kubernetes.io~projected/kube-api-access-x2x4z"

// benchPublish is one operation.
func benchPublish(b *testing.B, pod *Dir, path string, list []File, o Options, want Outcome) Result {
	d, err := pod.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	r, err := d.Publish(list, o)
	if err != nil || r.Outcome != want {
		b.Fatal(r.Outcome, err)
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	return r
}

// afterwards does work that is not the operation's own. Many operations share one, so that stopping
// the timer costs nothing.
func afterwards(b *testing.B, work func()) {
	b.StopTimer()
	work()
	b.StartTimer()
}

func BenchmarkPublish(b *testing.B) {
	b.Run("first", benchFirst)
	b.Run("changed", func(b *testing.B) { benchChanged(b, false) })
	b.Run("changed-kept", func(b *testing.B) { benchChanged(b, true) })
	b.Run("unchanged", benchUnchanged)
	b.Run("sweep", benchSweep)
}

func benchFirst(b *testing.B) {
	pod, list := benchPod(b), benchFiles(0)
	const batch = 100
	paths := make([]string, batch)
	for i := range paths {
		paths[i] = filepath.Join("volumes/kubernetes.io~projected", string(rune('a'+i/26))+string(rune('a'+i%26)))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%batch == 0 {
			afterwards(b, func() {
				check(b, pod.Remove("volumes"))
				for _, p := range paths {
					check(b, must(pod.Mkdir(p, 0o755))(b).Close())
				}
			})
		}
		benchPublish(b, pod, paths[i%batch], list, Options{Now: testTime.Add(time.Duration(i))}, Written)
	}
}

// benchChanged renews the token alone; the other files come from memory, or from the old version.
func benchChanged(b *testing.B, keep bool) {
	pod := benchPod(b)
	d := must(pod.Mkdir(benchVolume, 0o755))(b)
	defer d.Close()
	list, other := benchFiles(1), benchFiles(2)
	r := publish(b, d, Written, other, at(0))
	if keep {
		for i := 1; i < len(list); i++ {
			list[i].Keep, other[i].Keep = &r.Sums[i], &r.Sums[i]
		}
	}
	b.ReportAllocs()
	for i := 1; b.Loop(); i++ {
		r = benchPublish(b, pod, benchVolume, list, at(i), Written)
		list, other = other, list
		if i%10 == 0 {
			afterwards(b, func() { check(b, d.Sweep(r.Stale)) })
		}
	}
}

func benchUnchanged(b *testing.B) {
	pod, list := benchPod(b), benchFiles(0)
	d := must(pod.Mkdir(benchVolume, 0o755))(b)
	defer d.Close()
	publish(b, d, Written, list, at(0))
	var links Links
	o := Options{Now: time.Now().Add(time.Minute), Links: &links} // a look finds links that are no longer young
	b.ReportAllocs()
	for b.Loop() {
		benchPublish(b, pod, benchVolume, list, o, Unchanged)
	}
}

func benchSweep(b *testing.B) {
	pod := benchPod(b)
	d := must(pod.Mkdir(benchVolume, 0o755))(b)
	defer d.Close()
	publish(b, d, Written, benchFiles(0), at(0))
	b.ReportAllocs()
	var stale []string
	for i := 1; b.Loop(); i++ {
		if len(stale) == 0 {
			afterwards(b, func() {
				for j := range 10 {
					stale = must(d.Publish(benchFiles(i+j), at(i+j)))(b).Stale
				}
			})
		}
		check(b, d.Sweep(stale[:1]))
		stale = stale[1:]
	}
}
