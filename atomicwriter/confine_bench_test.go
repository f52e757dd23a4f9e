package atomicwriter

import (
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkConfinement is every open of an unchanged publish, and the close of it: of the volume's directory, its version
// and the three files. Confined, as Publish does it: by openat2 below what is open, without links and mounts, and an
// fstat before anything is read. Plain: by open(2) and the whole path.
func BenchmarkConfinement(b *testing.B) {
	pod, list := benchPod(b), benchFiles(0)
	d := must(pod.Mkdir(benchVolume, 0o755))(b)
	defer d.Close()
	version := publish(b, d, Written, list, at(0)).Version
	b.Run("by=confined", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			benchConfined(b, pod, version, list)
		}
	})
	b.Run("by=plain", func(b *testing.B) {
		paths := []string{d.path, d.path + "/" + version}
		for _, f := range list {
			paths = append(paths, d.path+"/"+version+"/"+f.Path)
		}
		b.ReportAllocs()
		for b.Loop() {
			for i, path := range paths {
				flags := unix.O_RDONLY | unix.O_CLOEXEC
				if i < 2 {
					flags |= unix.O_DIRECTORY
				}
				fd, err := unix.Open(path, flags, 0)
				if err != nil {
					b.Fatal(err)
				}
				unix.Close(fd)
			}
		}
	})
}

func benchConfined(b *testing.B, pod *Dir, version string, list []File) {
	d, err := pod.Open(benchVolume)
	if err != nil {
		b.Fatal(err)
	}
	fd, err := openat(d.fd, version, openDir, 0, below)
	if err != nil {
		b.Fatal(err)
	}
	for i := range list {
		var st unix.Stat_t
		file, err := openPlain(fd, list[i].Path, &st)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(file)
	}
	unix.Close(fd)
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
}
