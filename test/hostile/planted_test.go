package hostile

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/test/daemontest"
)

// What becomes of a naive writer.
const (
	changes = "changes what is outside"
	blocks  = "waits for somebody else"
	fails   = "fails for ever"
	swells  = "holds what the pod likes"
)

// attack plants something in the volume dir, whose current version has that name.
type attack struct {
	plant  func(dir, version, canary string) error
	naive  string
	linked bool // hard links to the canary's files are made
}

const (
	oldVersion = "..2020_01_01_00_00_00.1"
	manyBytes  = 32 << 20
)

// at replaces what is at a path of the volume, of which VERSION is the current version.
func at(path string, plant func(path, canary string) error) func(dir, version, canary string) error {
	return func(dir, version, canary string) error {
		path := filepath.Join(dir, strings.Replace(path, "VERSION", version, 1))
		var err error
		for range 1000 {
			err = errors.Join(os.RemoveAll(path), plant(path, canary))
			if !errors.Is(err, os.ErrExist) { // the daemon was quicker
				break
			}
		}
		return err
	}
}

func linkTo(target string) func(path, canary string) error {
	return func(path, canary string) error {
		return os.Symlink(strings.Replace(target, "CANARY", canary, 1), path)
	}
}

func relativeTo(file string) func(path, canary string) error {
	return func(path, canary string) error {
		target, err := filepath.Rel(filepath.Dir(path), filepath.Join(canary, file))
		return errors.Join(err, os.Symlink(target, path))
	}
}

func hardLink(path, canary string) error { return os.Link(filepath.Join(canary, "secret"), path) }
func fifo(path, _ string) error          { return unix.Mkfifo(path, 0o666) }
func socket(path, _ string) error        { return unix.Mknod(path, unix.S_IFSOCK|0o666, 0) }

func sparse(size int64) func(path, _ string) error {
	return func(path, _ string) error {
		return errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, size))
	}
}

func chain(path, canary string) error {
	hop := filepath.Join(filepath.Dir(path), "hop")
	return errors.Join(os.RemoveAll(hop), os.Symlink("hop", path), os.Symlink(filepath.Join(canary, "secret"), hop))
}

var attacks = map[string]attack{
	"a link to a file":           {at("token", linkTo("CANARY/secret")), changes, false},
	"a relative link":            {at("token", relativeTo("secret")), changes, false},
	"a link through proc":        {at("token", linkTo("/proc/self/root/CANARY/secret")), changes, false},
	"a chain of links":           {at("token", chain), changes, false},
	"a loop":                     {at("token", linkTo("token")), fails, false},
	"a hard link":                {at("token", hardLink), changes, true},
	"a FIFO":                     {at("token", fifo), blocks, false},
	"a socket":                   {at("token", socket), fails, false},
	"the data link leads out":    {at("..data", linkTo("CANARY")), changes, false},
	"the data link, relative":    {at("..data", relativeTo(".")), changes, false},
	"the data link is a FIFO":    {at("..data", fifo), fails, false},
	"the data link loops":        {at("..data", linkTo("..data")), fails, false},
	"a temporary link":           {at("..data_tmp", linkTo("CANARY/dir")), fails, false},
	"a temporary hard link":      {at("..data_tmp", hardLink), fails, true},
	"the version is a link":      {at("VERSION", linkTo("CANARY")), changes, false},
	"a directory is a link":      {at("VERSION/dir", linkTo("CANARY/dir")), changes, false},
	"a link in the version":      {at("VERSION/token", linkTo("CANARY/secret")), changes, false},
	"a hard link in the version": {at("VERSION/token", hardLink), changes, true},
	"a hard link to be kept":     {at("VERSION/dir/config", hardLink), changes, true},
	"a FIFO in the version":      {at("VERSION/token", fifo), blocks, false},
	"a huge file to be kept":     {at("VERSION/dir/config", sparse(manyBytes)), swells, false},
	"an old version is a link":   {at(oldVersion, linkTo("CANARY")), changes, false},
	"a link in an old version": {at(oldVersion+"/", func(path, canary string) error {
		return errors.Join(os.Mkdir(path, 0o755), os.Symlink(canary, path+"/dir"))
	}), changes, false},
	"a link with a strange name": {at("new\nline\xff\"", linkTo("CANARY")), changes, false},
	"a link of the longest name": {at(strings.Repeat("n", 255), linkTo("CANARY")), changes, false},
	"another link to the version": {at("second", func(path, canary string) error {
		return os.Symlink("..data/../../../../../../../"+filepath.Base(canary), path)
	}), changes, false},
}

// naive publishes as many a sidecar does: it believes in names. It returns how much it has held.
func naive(dir string) (held int, err error) {
	keep, err := os.ReadFile(filepath.Join(dir, "..data/dir/config"))
	for _, token := range []string{"token", "..data/token"} {
		path := filepath.Join(dir, token)
		err = errors.Join(err, os.WriteFile(path, []byte("token"), 0o644), os.Chmod(path, 0o600), os.Chown(path, os.Geteuid(), os.Getegid()))
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "..data/dir/config"), keep, 0o644))
	err = errors.Join(err, os.Symlink("..data", filepath.Join(dir, "..data_tmp")), os.Remove(filepath.Join(dir, "..data_tmp")))
	entries, _ := os.ReadDir(dir)
	for _, e := range entries { // what it does not know is old
		if name := e.Name(); name != "token" && name != "dir" && name != "..data" && !versionName.MatchString(name) || name == oldVersion {
			err = errors.Join(err, emptyDir(filepath.Join(dir, name), 0))
		}
	}
	return len(keep), err
}

func emptyDir(dir string, depth int) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if info, statErr := os.Stat(path); statErr == nil && info.IsDir() && depth < 3 {
			err = errors.Join(err, emptyDir(path, depth+1))
		}
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// sandbox is a volume that nobody looks after.
func (w *world) sandbox(t *testing.T, name string) (dir, version string) {
	dir, version = filepath.Join(w.top, "sandbox-"+name, "a/b/c/d/v"), "..2026_01_01_00_00_00.5"
	check(t, os.MkdirAll(filepath.Join(dir, version, "dir"), 0o755))
	for _, file := range []string{"token", "dir/config"} {
		check(t, os.WriteFile(filepath.Join(dir, version, file), []byte("old"), 0o644))
	}
	for link, target := range map[string]string{"..data": version, "token": "..data/token", "dir": "..data/dir"} {
		check(t, os.Symlink(target, filepath.Join(dir, link)))
	}
	return dir, version
}

// succeeds shows what the attack does to a naive writer.
func (w *world) succeeds(t *testing.T, name string, a attack) {
	t.Helper()
	dir, version := w.sandbox(t, name)
	if _, err := naive(dir); err != nil {
		t.Fatalf("a naive writer in peace: %v", err)
	}
	canary := w.canary(t, "naive-"+name)
	check(t, a.plant(dir, version, canary))
	before := fingerprint(t, canary, a.linked)
	if a.naive == blocks {
		done := make(chan struct{})
		go func() { defer close(done); naive(dir) }()
		path := filepath.Join(dir, "token") // leads to the FIFO, which a writer opens only when somebody reads
		reader, err := os.Open(path)
		check(t, err)
		defer reader.Close()
		if n, err := reader.Read(make([]byte, 10)); n < len("token") {
			t.Errorf("a naive writer wrote %d bytes into the FIFO: %v", n, err)
		}
		return // it waits at the next one for ever, or until the FIFO is gone
	}
	held, err := naive(dir)
	changed := !maps.Equal(fingerprint(t, canary, a.linked), before)
	if got := map[string]bool{changes: changed, fails: err != nil, swells: held >= manyBytes}; !got[a.naive] {
		t.Errorf("a naive writer: changed %v, held %d bytes, %v; want that it %s", changed, held, err, a.naive)
	}
}

// TestPlanted plants each thing in a volume of its own. The daemon renews tokens every few seconds meanwhile.
func TestPlanted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Run("attacks", func(t *testing.T) {
		i := 0
		for name, a := range attacks {
			i++
			pod, id := w.pod(fmt.Sprint("attacked-", i)), fmt.Sprint(i)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w.succeeds(t, id, a)
				canary := w.canary(t, id)
				version, err := os.Readlink(filepath.Join(pod.dir, "..data"))
				check(t, err)
				if a.linked { // what is planted changes these itself
					before := fingerprint(t, canary, true)
					check(t, a.plant(pod.dir, version, canary))
					pod.survives(t, canary, true, before)
					return
				}
				before := fingerprint(t, canary, false)
				check(t, a.plant(pod.dir, version, canary))
				pod.survives(t, canary, false, before)
			})
		}
	})
	w.awaitRenewals(t)
	w.expectNoSecret(t)
	w.Terminate()
}

// survives: the volume is whole again, old versions go, the pod's directory goes, and nothing outside has changed.
func (v volume) survives(t *testing.T, canary string, linked bool, before map[string]string) {
	t.Helper()
	v.awaitWhole(t)
	daemontest.Eventually(t, "no old version", func() bool {
		_, err := os.Lstat(filepath.Join(v.dir, oldVersion))
		return os.IsNotExist(err)
	})
	unchanged(t, canary, linked, before)
	v.end(t)
	unchanged(t, canary, linked, before)
}
