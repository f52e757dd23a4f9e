package kubelet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/projector"
)

// plainWorld has one volume with a token, and two files in a directory.
func plainWorld() *world {
	w := &world{
		pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pod", UID: "uid", Labels: map[string]string{"app": "x"}}},
	}
	w.pod.Spec = corev1.PodSpec{ServiceAccountName: "default", NodeName: "node", Containers: []corev1.Container{{Name: "c"}}}
	w.objects = map[projector.ObjectRef]map[string][]byte{
		w.ref(projector.KindSecret, "secret"): {"one": []byte("1"), "two": []byte("2")},
	}
	w.pod.Spec.Volumes = []corev1.Volume{{Name: "volume", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: new(int32(0o644)),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{ExpirationSeconds: new(int64(3600)), Path: "token"}},
			{Secret: &corev1.SecretProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: "secret"},
				Items:                []corev1.KeyToPath{{Key: "one", Path: "dir/one"}, {Key: "two", Path: "dir/two"}},
			}},
		},
	}}}}
	return w
}

// plants are faults in what ours has published, and what the comparison says of each.
var plants = []struct {
	name, found string
	plant       func(dir string) error
}{
	{"nothing", "", func(string) error { return nil }},
	{"content", "..version/token is", func(dir string) error { return os.WriteFile(dir+"/token", []byte("another"), 0) }},
	{"mode", "..version/token is", func(dir string) error { return os.Chmod(dir+"/token", 0o640) }},
	{"mode of a directory", "..version/dir is", func(dir string) error { return os.Chmod(dir+"/dir", 0o775) }},
	{"mode of the volume", ". is", func(dir string) error { return os.Chmod(dir, 0o777) }},
	{"setgid", "..version is", func(dir string) error { return os.Chmod(dir+"/..data", 0o755|os.ModeSetgid) }},
	{"missing file", "..version/dir/two is missing", func(dir string) error { return os.Remove(dir + "/dir/two") }},
	{"missing link", "token is missing", func(dir string) error { return os.Remove(dir + "/token") }},
	{"link to elsewhere", "token is", func(dir string) error { return relink("..data/dir/one", dir+"/token") }},
	{"link not through ..data", "dir is", func(dir string) error {
		version, err := os.Readlink(dir + "/..data")
		if err != nil {
			return err
		}
		return relink(version+"/dir", dir+"/dir")
	}},
	{"file for a link", "token is", func(dir string) error {
		if err := os.Remove(dir + "/token"); err != nil {
			return err
		}
		return os.WriteFile(dir+"/token", nil, 0o644)
	}},
	{"surplus file", "..version/dir/three is surplus", func(dir string) error { return os.WriteFile(dir+"/dir/three", nil, 0o644) }},
	{"surplus link", "three is surplus", func(dir string) error { return os.Symlink("..data/three", dir+"/three") }},
	{"surplus version", "..2000_01_01_00_00_00.1 is surplus", func(dir string) error { return os.Mkdir(dir+"/..2000_01_01_00_00_00.1", 0o755) }},
	{"everything", "not published", os.RemoveAll},
}

func relink(target, link string) error {
	if err := os.Remove(link); err != nil {
		return err
	}
	return os.Symlink(target, link)
}

// TestComparisonSeesEveryPlant: of each fault planted on disk, and of nothing else.
func TestComparisonSeesEveryPlant(t *testing.T) {
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			dir := memoryDir(t)
			c := project(t, dir, plainWorld(), plainWorld())
			volume := filepath.Join(dir, "ours/pods/uid/volumes/kubernetes.io~projected/volume")
			if err := p.plant(volume); err != nil {
				t.Fatal(err)
			}
			planted, err := readVersion(volume)
			if err != nil {
				t.Fatal(err)
			}
			c.second.volumes["volume"] = planted
			c.judge()
			c.wantFault(t, "volume, second projection: "+p.found, p.found != "")
		})
	}
}

// wantFault wants just this fault, or none.
func (c *comparison) wantFault(t *testing.T, fault string, wanted bool) {
	t.Helper()
	if len(c.faults) > 1 || (len(c.faults) == 1) != wanted || wanted && !strings.HasPrefix(c.faults[0], fault) {
		t.Errorf("got %q, want one that begins %q: %v", c.faults, fault, wanted)
	}
}

// TestComparisonSeesPlantedOwners, which an ordinary user could not plant on disk.
func TestComparisonSeesPlantedOwners(t *testing.T) {
	for _, path := range []string{".", "..version", "..version/dir", "..version/token", "token", "..data"} {
		for name, plant := range map[string]func(*entry){
			"user":  func(e *entry) { e.uid++ },
			"group": func(e *entry) { e.gid++ },
		} {
			t.Run(name+" of "+path, func(t *testing.T) {
				c := project(t, memoryDir(t), plainWorld(), plainWorld())
				e := c.first.volumes["volume"].tree[path]
				plant(&e)
				c.first.volumes["volume"].tree[path] = e
				c.judge()
				c.wantFault(t, "volume, first projection: "+path+" is", true)
			})
		}
	}
}

// TestComparisonSeesWrongReports, and volumes that are published or written although they are not to be.
func TestComparisonSeesWrongReports(t *testing.T) {
	empty := plainWorld()
	clear(empty.objects)
	for name, p := range map[string]struct {
		w     *world
		plant func(*comparison)
		found string
	}{
		"in order":      {plainWorld(), func(*comparison) {}, ""},
		"refused":       {empty, func(*comparison) {}, ""},
		"not reported":  {empty, func(c *comparison) { c.second.states = map[string]int{"ready": 1} }, ", second projection: volumes are reported as"},
		"reported":      {plainWorld(), func(c *comparison) { c.first.states = map[string]int{"failed": 1} }, ", first projection: volumes are reported as"},
		"pending":       {plainWorld(), func(c *comparison) { c.first.states = map[string]int{"pending": 1} }, ", first projection: volumes are reported as"},
		"published":     {empty, func(c *comparison) { c.second.volumes["volume"] = version{tree: tree{".": {}}} }, "volume, second projection: published, although"},
		"written again": {plainWorld(), func(c *comparison) { c.second.volumes["volume"] = version{"..2", c.first.volumes["volume"].tree} }, "volume, second projection: written again"},
	} {
		t.Run(name, func(t *testing.T) {
			c := project(t, memoryDir(t), p.w, p.w)
			p.plant(c)
			c.judge()
			c.wantFault(t, p.found, p.found != "")
		})
	}
}
