package hostile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/test/daemontest"
)

// bulks fill a volume.
var bulks = map[string]func(dir, version string) error{
	"files": func(dir, version string) error {
		return errors.Join(manyFiles(filepath.Join(dir, version), 5000), manyFiles(filepath.Join(dir, version, "dir"), 20_000))
	},
	"old versions": func(dir, _ string) error {
		for i := range 3000 {
			if err := os.Mkdir(filepath.Join(dir, fmt.Sprintf("..2020_01_01_00_00_00.%d", i)), 0o755); err != nil {
				return err
			}
		}
		return nil
	},
	"sparse files": func(dir, version string) error {
		var errs []error
		for i := range 100 {
			errs = append(errs, sparse(2<<20)(filepath.Join(dir, version, fmt.Sprint("sparse", i)), ""))
		}
		token := filepath.Join(dir, version, "token")
		return errors.Join(append(errs, os.Remove(token), sparse(1<<40)(token, ""))...)
	},
	"a deep tree": func(dir, version string) error {
		return errors.Join(deepTree(filepath.Join(dir, version, "dir"), 3000), deepTree(dir, 3000))
	},
	"strange names": func(dir, version string) error {
		for i := range 256 {
			for _, at := range []string{filepath.Join(dir, version), dir} {
				name := fmt.Sprintf("%c\n\xff%s", rune(i+1), strings.Repeat("n", i%200))
				if err := unix.Mknod(filepath.Join(at, strings.ReplaceAll(name, "/", "_")), unix.S_IFREG, 0); err != nil {
					return err
				}
			}
		}
		return nil
	},
}

func manyFiles(dir string, n int) error {
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("file", i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// deepTree makes a chain of directories that no path names.
func deepTree(dir string, levels int) error {
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range levels {
		if err != nil {
			return err
		}
		err = unix.Mkdirat(fd, "deep", 0o755)
		next, opened := unix.Openat(fd, "deep", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		fd, err = next, errors.Join(err, opened)
	}
	return errors.Join(err, unix.Close(fd))
}

// peak is the most memory that the process has had, in bytes.
func (w *world) peak(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID()))
	check(t, err)
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib := 0
	if _, err := fmt.Sscan(rest, &kib); err != nil || kib == 0 {
		t.Fatalf("no peak in the status: %v", err)
	}
	return kib << 10
}

// mayGrow is how much more memory a pod may cost than it costs in peace. What the pods plant is beyond a hundred of these.
const mayGrow = 128 << 20

// TestBulk: volumes full of whatever a pod can make cheaply are whole again, also by a daemon that starts anew and finds them so, whose
// memory stays what it was; all of it goes with the pods.
func TestBulk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pods := map[string]volume{}
	for name := range bulks {
		pods[name] = w.pod(strings.ReplaceAll(name, " ", "-"))
	}
	w.awaitRenewals(t)
	before := w.peak(t)
	for _, restart := range []bool{false, true} {
		if restart {
			w.Suspend() // it finds what is planted from here on at its start only
		}
		for name, fill := range bulks {
			version, err := os.Readlink(filepath.Join(pods[name].dir, "..data"))
			check(t, err)
			err = fill(pods[name].dir, version)
			if errors.Is(err, os.ErrExist) || !restart && errors.Is(err, os.ErrNotExist) {
				continue // made before, and nobody's to remove; or the version was replaced meanwhile
			}
			check(t, err)
		}
		if restart {
			w.Kill()
			w.start()
		}
		for _, pod := range pods {
			pod.awaitWhole(t)
		}
		w.awaitRenewals(t)
		if after := w.peak(t); after > before+mayGrow {
			t.Errorf("restarted %v: a peak of %d MiB, before %d", restart, after>>20, before>>20)
		} else {
			t.Logf("restarted %v: a peak of %d MiB, before %d", restart, after>>20, before>>20)
		}
	}
	for _, pod := range pods {
		pod.end(t)
	}
	daemontest.Eventually(t, "others as before", func() bool { return volume{w, w.others[0], nil}.fault() == "" })
	w.Terminate()
}
