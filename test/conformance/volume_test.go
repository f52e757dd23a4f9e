package conformance

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// podDir and volumeDir are where the daemon keeps a pod, and one of its volumes.
func podDir(root string, pod *corev1.Pod) string {
	return filepath.Join(root, "pods", string(pod.UID))
}

func volumeDir(root string, pod *corev1.Pod, volume string) string {
	return filepath.Join(podDir(root, pod), "volumes", "kubernetes.io~projected", volume)
}

// missing says which file of the volume cannot be read or is empty.
func missing(dir string, files ...string) error {
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if len(content) == 0 {
			return fmt.Errorf("%s is empty", filepath.Join(dir, name))
		}
	}
	return nil
}

func readToken(t *testing.T, dir, name string) string {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(token)
}

// tree is what can be seen of every entry below a directory. Two equal trees mean that nothing has been written between.
type tree map[string]string

func readTree(t *testing.T, dir string) tree {
	t.Helper()
	entries := tree{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var stat syscall.Stat_t
		if err := syscall.Lstat(path, &stat); err != nil {
			return err
		}
		target := ""
		if stat.Mode&syscall.S_IFMT == syscall.S_IFLNK {
			if target, err = os.Readlink(path); err != nil {
				return err
			}
		}
		entries[path] = fmt.Sprintf("inode %d mode %o owner %d:%d size %d mtime %v ctime %v -> %q",
			stat.Ino, stat.Mode, stat.Uid, stat.Gid, stat.Size, stat.Mtim, stat.Ctim, target)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// changed says what differs, at most the first difference found.
func (before tree) changed(after tree) error {
	all := maps.Clone(before)
	maps.Copy(all, after)
	for path := range all {
		if before[path] != after[path] {
			return fmt.Errorf("%s changed\nfrom %s\nto   %s", path, before[path], after[path])
		}
	}
	return nil
}

// A rewrite with the same bytes, a link made anew, a mode, a new and a removed entry: the comparison must see each.
func TestTreeSeesEveryChange(t *testing.T) {
	changes := map[string]func(dir string) error{
		"same bytes": func(dir string) error { return os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644) },
		"same link": func(dir string) error {
			if err := os.Remove(filepath.Join(dir, "link")); err != nil {
				return err
			}
			return os.Symlink("file", filepath.Join(dir, "link"))
		},
		"mode":    func(dir string) error { return os.Chmod(filepath.Join(dir, "file"), 0o600) },
		"new":     func(dir string) error { return os.Mkdir(filepath.Join(dir, "new"), 0o755) },
		"removed": func(dir string) error { return os.Remove(filepath.Join(dir, "link")) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
			before := readTree(t, dir)
			if err := before.changed(readTree(t, dir)); err != nil {
				t.Errorf("nothing was done, yet %v", err)
			}
			waitForNextTick(t)
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			if before.changed(readTree(t, dir)) == nil {
				t.Error("not seen")
			}
		})
	}
}

// waitForNextTick returns once the file system's clock, which may tick every few milliseconds only, has moved on.
func waitForNextTick(t *testing.T) {
	t.Helper()
	probe := filepath.Join(t.TempDir(), "probe")
	stamp := func() syscall.Timespec {
		if err := os.WriteFile(probe, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var stat syscall.Stat_t
		if err := syscall.Stat(probe, &stat); err != nil {
			t.Fatal(err)
		}
		return stat.Ctim
	}
	for first := stamp(); stamp() == first; {
	}
}

// leaked says whether a token, or the signature that makes it one, is in the text.
func leaked(text []byte, tokens []string) bool {
	for _, token := range tokens {
		signature := token[strings.LastIndexByte(token, '.')+1:]
		if bytes.Contains(text, []byte(token)) || bytes.Contains(text, []byte(signature)) {
			return true
		}
	}
	return false
}

// wantNoLeak first makes sure that a planted token would be found.
func wantNoLeak(t *testing.T, logFile string, tokens []string) {
	t.Helper()
	log, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(tokens) == 0 || !leaked(append(bytes.Clone(log), tokens[len(tokens)-1]...), tokens) {
		t.Fatal("a planted token was not found")
	}
	if leaked(log, tokens) {
		t.Error("there is a token in the daemon's log")
	}
}
