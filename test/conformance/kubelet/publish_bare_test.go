package kubelet

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bare does what the layout cannot do without, by the fewest system calls and plain paths: the floor of a publish. It finds no
// damage, follows every link, removes nothing, and two at a time or a crash would spoil it.
type bare struct {
	dir     string
	content map[string][]byte
}

func (r bare) publish(name string, n int) error {
	number(r.content["token"], n)
	dir := filepath.Join(r.dir, name)
	first := false
	same, err := r.same(dir + "/..data")
	switch {
	case err == unix.ENOENT:
		first = true
	case err != nil || same:
		return err
	}
	version := fmt.Sprintf("..2026_11_22_10_15_04.%09d", n)
	if err := r.write(dir + "/" + version); err != nil {
		return err
	}
	for file := range r.content {
		if !first {
			break
		}
		if err := unix.Symlink("..data/"+file, dir+"/"+file); err != nil {
			return err
		}
	}
	if err := unix.Symlink(version, dir+"/..data_tmp"); err != nil {
		return err
	}
	return unix.Rename(dir+"/..data_tmp", dir+"/..data")
}

// same reports whether the files in dir are those that are wanted.
func (r bare) same(dir string) (bool, error) {
	var buf [2048]byte
	for file, want := range r.content {
		fd, err := unix.Open(dir+"/"+file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, err
		}
		n, err := unix.Read(fd, buf[:])
		unix.Close(fd)
		if err != nil || !bytes.Equal(buf[:n], want) {
			return false, err
		}
	}
	return true, nil
}

func (r bare) write(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for file, data := range r.content {
		fd, err := unix.Open(dir+"/"+file, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		_, err = unix.Write(fd, data)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// sweep removes every version but the current one.
func (r bare) sweep(name string) error {
	dir := filepath.Join(r.dir, name)
	current, err := os.Readlink(dir + "/..data")
	if err != nil {
		return err
	}
	versions, err := filepath.Glob(dir + "/..2*")
	for _, version := range versions {
		if filepath.Base(version) != current && err == nil {
			err = os.RemoveAll(version)
		}
	}
	return err
}
