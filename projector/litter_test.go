package projector

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// script is what the fuzzer says, byte by byte; zeros when it has ended.
type script []byte

func (s *script) byte() int {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return int(b)
}

// text takes up to n bytes.
func (s *script) text(n int) string {
	n = min(n, len(*s))
	text := string((*s)[:n])
	*s = (*s)[n:]
	return text
}

// litter is a root under which a script puts garbage, without ever leaving it, and a directory beside it that
// nobody may touch.
type litter struct {
	t       *testing.T
	path    string
	outside string
	held    *os.Root
	dirs    []string // relative to the root; where garbage goes
}

const wantedVolume = "pods/uid-1/" + volumesPath + "/extra"

func newLitter(t *testing.T) *litter {
	dir := memoryDir(t)
	l := &litter{t: t, path: filepath.Join(dir, "root"), outside: filepath.Join(dir, "outside")}
	for _, d := range []string{l.path, filepath.Join(l.outside, "dir")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"file", "dir/file"} {
		if err := os.WriteFile(filepath.Join(l.outside, name), []byte("outside"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	held, err := os.OpenRoot(l.path)
	if err != nil {
		t.Fatal(err)
	}
	l.held = held
	t.Cleanup(func() { l.openUp(); held.Close() })
	return l
}

// openUp lets the test's own clean-up enter what nobody may enter.
func (l *litter) openUp() {
	filepath.WalkDir(l.path, func(p string, e fs.DirEntry, _ error) error {
		if e != nil && e.IsDir() {
			_ = os.Chmod(p, 0o700) // what cannot be opened up stays behind
		}
		return nil
	})
}

// scatter carries the script out. A pod's own directory stays one: above it only we can write.
func (l *litter) scatter(s script) {
	l.dirs = []string{wantedVolume, wantedVolume, path.Dir(wantedVolume), "pods/uid-1/volumes", "pods/uid-1", "pods", "pods/uid-9"}
	if entries, err := os.ReadDir(filepath.Join(l.path, wantedVolume)); err == nil {
		for _, e := range entries {
			if e.IsDir() {
				l.dirs = append(l.dirs, wantedVolume+"/"+e.Name(), wantedVolume+"/"+e.Name()+"/dir")
			}
		}
	}
	for n := 0; len(s) > 0 && n < 24; n++ {
		dir := l.dirs[s.byte()%len(l.dirs)]
		name, act, arg := l.name(&s, dir), s.byte(), s.byte()
		if dir == "pods" && name == "uid-1" {
			continue
		}
		if act >= 128 {
			_ = l.held.RemoveAll(path.Join(dir, name)) // follows no link; what it cannot remove stays
		}
		l.plant(dir, name, act, arg, &s)
	}
}

// name is a fixed name that means something there, or any name at all.
func (l *litter) name(s *script, dir string) string {
	known := []string{"extra-token", "dir", "token", "namespace", "..data", "..data_tmp", "..2020_01_01_00_00_00.1", "extra", "volumes",
		path.Base(volumesPath), "..2099_12_31_23_59_59.999999999", "uid-9", strings.Repeat("n", 255)}
	if dir == wantedVolume { // the current version itself, too
		if target, err := os.Readlink(filepath.Join(l.path, dir, "..data")); err == nil && !strings.Contains(target, "/") {
			known = append(known, target)
		}
	}
	i := s.byte()
	if i < 192 {
		return known[i%len(known)]
	}
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == 0 {
			return '_'
		}
		return r
	}, s.text(i-191))
	if name == "" || name == "." || name == ".." {
		return "odd\nname"
	}
	return name
}

// plant makes one thing in a directory that is held open, so that no link planted before leads elsewhere. What the
// file system or the process's rights refuse is not planted.
func (l *litter) plant(dir, name string, act, arg int, s *script) {
	_ = l.held.MkdirAll(dir, 0o755)
	parent, err := l.held.OpenFile(dir, unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer parent.Close()
	fd := int(parent.Fd())
	switch act % 9 {
	case 0:
		_ = unix.Mkfifoat(fd, name, 0o666)
	case 1:
		_ = unix.Mknodat(fd, name, unix.S_IFSOCK|0o666, 0)
	case 2:
		_ = unix.Symlinkat(l.target(arg, s), fd, name)
	case 3:
		_ = unix.Linkat(unix.AT_FDCWD, filepath.Join(l.outside, "file"), fd, name, 0)
	case 4:
		l.write(fd, name, arg, s)
	case 5:
		if unix.Mkdirat(fd, name, 0o755) == nil {
			l.dirs = append(l.dirs, path.Join(dir, name))
		}
	case 6:
		l.deep(fd, name, arg)
	case 7:
		_ = unix.Fchmodat(fd, name, uint32(arg)<<4&0o7777, unix.AT_SYMLINK_NOFOLLOW)
	case 8:
		if os.Geteuid() == 0 {
			_ = unix.Mknodat(fd, name, unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0))) // /dev/tty
		}
	}
}

// target is where a link leads: to anywhere.
func (l *litter) target(arg int, s *script) string {
	known := []string{l.outside, l.outside + "/dir", l.outside + "/file", ".", "..", "/", "..data", "..data/token", "../../../../outside",
		"..2020_01_01_00_00_00.1", "..2099_12_31_23_59_59.999999999", "../other", "/proc/self/fd/0", "/dev/zero", strings.Repeat("x/", 500)}
	if arg < 192 {
		return known[arg%len(known)]
	}
	return s.text(arg-191) + "x"
}

// write makes a file: garbage, something huge, half a token or one that is somebody else's.
func (l *litter) write(fd int, name string, arg int, s *script) {
	file, err := unix.Openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, uint32(arg)<<2&0o777)
	if err != nil {
		return
	}
	defer unix.Close(file)
	mine := Request{Namespace: "default", ServiceAccount: "default", PodUID: "uid-1", PodName: "pod-1", Audience: "vault"}
	other := mine
	other.PodUID = "uid-2"
	own := sign(claimsFor(mine, issuedAt.Add(-time.Minute), 10*time.Minute))
	data := []string{s.text(arg), own, own[:len(own)/2], sign(claimsFor(other, issuedAt, time.Hour)),
		sign(claimsFor(mine, issuedAt.Add(-time.Hour), time.Minute)), sign(claimsFor(mine, issuedAt.AddDate(50, 0, 0), 1<<40))}[arg%6]
	_, _ = unix.Write(file, []byte(data))
	if arg%16 == 15 {
		_ = unix.Ftruncate(file, 1<<40)
	}
}

// deep makes a tree of arg levels with a link at the bottom; every third is closed.
func (l *litter) deep(fd int, name string, arg int) {
	at, err := unix.Dup(fd)
	for range arg {
		if err != nil || unix.Mkdirat(at, name, 0o755) != nil {
			break
		}
		var next int
		next, err = unix.Openat(at, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if arg%3 == 0 {
			_ = unix.Fchmodat(at, name, 0, unix.AT_SYMLINK_NOFOLLOW)
		}
		unix.Close(at)
		at, name = next, "d"
	}
	if err == nil {
		_ = unix.Symlinkat(l.outside, at, "link")
		unix.Close(at)
	}
}
