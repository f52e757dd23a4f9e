package hostile

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// race is one turn of what a pod does in its volume over and over. What fails because the daemon was quicker is of no interest.
type race func(dir, canary string)

// run does turn after turn until stop is closed.
func (r race) run(stop <-chan struct{}, dir, canary string) {
	for {
		select {
		case <-stop:
			return
		default:
			r(dir, canary)
		}
	}
}

func exchange(a, b string) {
	_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}

// swap exchanges a name of the volume with something evil, and back.
func swap(name string, evil func(path, canary string) error) race {
	return func(dir, canary string) {
		bad := filepath.Join(dir, "evil")
		_ = evil(bad, canary) // unless it is there
		exchange(bad, filepath.Join(dir, name))
		exchange(bad, filepath.Join(dir, name))
	}
}

// swapVersions does that to every version, also while it is being made.
func swapVersions(below string, evil func(path, canary string) error) race {
	return func(dir, canary string) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if versionName.MatchString(e.Name()) {
				swap(filepath.Join(e.Name(), below), evil)(dir, canary)
			}
		}
	}
}

func closedTree(path, canary string) error {
	return errors.Join(os.MkdirAll(path+"/a/b", 0o755), os.Symlink(canary, path+"/a/b/link"), os.Link(canary+"/secret", path+"/a/secret"))
}

// squat takes the temporary link's name as often as it is free.
func squat(dir, canary string) {
	path := filepath.Join(dir, "..data_tmp")
	_ = hardLink(path, canary)
	_ = os.Remove(path)
	_ = linkTo("CANARY/dir")(path, canary)
	_ = os.Remove(path)
}

var races = map[string]race{
	"the data link, a link":          swap("..data", linkTo("CANARY")),
	"the data link, a FIFO":          swap("..data", fifo),
	"the token, a link":              swap("token", linkTo("CANARY/secret")),
	"the token, a hard link":         swap("token", hardLink),
	"the token, a tree":              swap("token", closedTree),
	"the temporary link":             squat,
	"the versions, links":            swapVersions("", linkTo("CANARY")),
	"the versions, hard links":       swapVersions("", hardLink),
	"the versions' token, a link":    swapVersions("token", linkTo("CANARY/token")),
	"the versions' directory, links": swapVersions("dir", linkTo("CANARY/dir")),
}

// careful is a naive writer who looks before it writes.
func careful(path string) error {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	return os.WriteFile(path, []byte("token"), 0o600)
}

// TestRaces: pods swap things in a tight loop while a configMap of theirs changes thirty times. Each change reaches a pod that is left
// in peace, nothing outside changes, and the volumes are whole when that ends. The same loop gets the better of a careful naive writer.
func TestRaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.outruns(t)
	canary := w.canary(t, "races")
	before := fingerprint(t, canary, true)
	stop, pods := make(chan struct{}), []volume{}
	var running sync.WaitGroup
	for _, r := range races {
		pod := w.pod(fmt.Sprint("racing-", len(pods)))
		pods = append(pods, pod)
		running.Go(func() { r.run(stop, pod.dir, canary) })
	}
	for i := range 30 {
		text := fmt.Sprint("change ", i)
		_, err := fakeapi.Update(w.api, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "settings"}, Data: map[string]string{"config": text}})
		check(t, err)
		for _, dir := range w.others {
			daemontest.Eventually(t, text, func() bool { got, _ := os.ReadFile(filepath.Join(dir, "dir/config")); return string(got) == text })
		}
	}
	w.awaitRenewals(t)
	gone, err := fakeapi.Create(w.api, newPod("gone-during-the-races"))
	check(t, err)
	volume{w, w.path(gone), gone}.awaitWhole(t)
	volume{w, w.path(gone), gone}.end(t)
	close(stop)
	running.Wait()
	for _, pod := range pods {
		_ = os.RemoveAll(filepath.Join(pod.dir, "evil"))
		pod.awaitWhole(t)
	}
	unchanged(t, canary, true, before)
	for _, pod := range pods {
		pod.end(t)
	}
	unchanged(t, canary, true, before)
	w.expectNoSecret(t)
	w.Terminate()
}

// outruns shows that the race is won against a writer who looks first.
func (w *world) outruns(t *testing.T) {
	t.Helper()
	canary := w.canary(t, "outrun")
	before := fingerprint(t, canary, false)
	dir := filepath.Join(w.top, "outrun")
	check(t, os.Mkdir(dir, 0o755))
	path := filepath.Join(dir, "token")
	check(t, os.WriteFile(path, nil, 0o600))
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { swap("token", linkTo("CANARY/secret")).run(stop, dir, canary) })
	daemontest.Eventually(t, "a careful writer writes into the canary", func() bool {
		for range 1000 {
			if err := careful(path); err != nil {
				t.Error(err)
			}
		}
		return !maps.Equal(fingerprint(t, canary, false), before)
	})
	close(stop)
	running.Wait()
}
