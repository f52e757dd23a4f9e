package conformance

import (
	"crypto/x509"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"
)

// imageContent is all that the image may hold, beside which it holds nothing.
var imageContent = map[string]fs.FileMode{
	"LICENSE":                           0o644,
	"THIRD-PARTY-LICENSES":              0o644,
	"etc":                               fs.ModeDir | 0o755,
	"etc/ssl":                           fs.ModeDir | 0o755,
	"etc/ssl/certs":                     fs.ModeDir | 0o755,
	"etc/ssl/certs/ca-certificates.crt": 0o644,
	"token-projector":                   0o755,
}

// contentFaults says how the image's file system differs from what it may be.
func contentFaults(i *builtImage) []string {
	var faults []string
	for name, entry := range i.entries {
		want, known := imageContent[name]
		switch {
		case !known:
			faults = append(faults, "unknown: "+name)
		case entry.mode != want:
			faults = append(faults, fmt.Sprintf("%s: mode %v, want %v", name, entry.mode, want))
		case entry.uid != 0 || entry.gid != 0:
			faults = append(faults, fmt.Sprintf("%s: owner %d:%d", name, entry.uid, entry.gid))
		case !entry.time.Equal(i.config.Created.Time):
			faults = append(faults, fmt.Sprintf("%s: time %v, the image's is %v", name, entry.time, i.config.Created))
		}
	}
	for name := range imageContent {
		if _, there := i.entries[name]; !there {
			faults = append(faults, "missing: "+name)
		}
	}
	return faults
}

// The image holds what it should, and another one from another place, with another umask and time zone, is the same image.
func TestImageIsReproducible(t *testing.T) {
	for _, fault := range contentFaults(&image) {
		t.Error(fault)
	}
	elsewhere := filepath.Join(t.TempDir(), "a checkout elsewhere")
	if out, err := exec.Command("cp", "-a", image.top, elsewhere).CombinedOutput(); err != nil {
		t.Fatalf("copy the checkout: %v\n%s", err, out)
	}
	again, err := buildImage(t.Context(), elsewhere, t.TempDir(), "077", "TZ=Asia/Kathmandu")
	if err != nil {
		t.Fatal(err)
	}
	if again.digest != image.digest {
		t.Errorf("digests %s and %s of one commit:\n%s", image.digest, again.digest,
			cmp.Diff(image.entries, again.entries, cmp.AllowUnexported(entry{})))
	}
	if again.id != image.id {
		t.Errorf("image ids %s and %s of one commit: %s", image.id, again.id, cmp.Diff(image.config, again.config))
	}

	// Each fault by itself is seen, and makes another image.
	for name, fault := range map[string]func(tree string) error{
		"a file more": func(tree string) error { return os.WriteFile(filepath.Join(tree, "etc", "passwd"), nil, 0o644) },
		"a file less": func(tree string) error { return os.Remove(filepath.Join(tree, "LICENSE")) },
		"a program that only root may run": func(tree string) error {
			return os.Chmod(filepath.Join(tree, "token-projector"), 0o700)
		},
		"a file that others may write": func(tree string) error {
			return os.Chmod(filepath.Join(tree, "etc", "ssl", "certs", "ca-certificates.crt"), 0o666)
		},
	} {
		planted, err := again.rebuild(t.Context(), t.TempDir(), fault)
		if err != nil {
			t.Fatal(err)
		}
		if faults := contentFaults(&planted); len(faults) != 1 {
			t.Errorf("%s: found %q, want that alone", name, faults)
		}
		if planted.digest == image.digest {
			t.Errorf("%s: the digest is the same", name)
		}
	}
}

// What the image says of itself is true, and fits the DaemonSet.
func TestImageSaysWhatItIs(t *testing.T) {
	revision, err := exec.Command("git", "-C", image.top, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"title": "token-projector", "source": "https://github.com/token-projector/token-projector", "licenses": "Apache-2.0",
		"description": "Keeps the projected ServiceAccount tokens of a node's pods fresh on disk",
		"version":     imageVersion, "revision": strings.TrimSpace(string(revision)),
	}
	got := map[string]string{}
	for name, value := range image.config.Config.Labels {
		if key, ours := strings.CutPrefix(name, "org.opencontainers.image."); ours {
			got[key] = value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if program := strings.Join(append(image.entrypoint, image.command...), " "); program != "/token-projector run" {
		t.Errorf("the image runs %q", program)
	}
	spec := daemonSet(t).Spec.Template.Spec
	user := ptr.Deref(spec.SecurityContext.RunAsUser, -1)
	if image.config.Config.User != strconv.FormatInt(user, 10) {
		t.Errorf("the image's user is %q, the DaemonSet's %d", image.config.Config.User, user)
	}
	confined := &sandbox{
		Root:         t.TempDir(),
		Capabilities: keptCapabilities(t, spec.Containers[0].SecurityContext),
		Argv:         append(image.entrypoint, "version"),
	}
	if err := os.CopyFS(confined.Root, os.DirFS(image.root)); err != nil {
		t.Fatal(err)
	}
	version, err := confined.command()
	if err != nil {
		t.Fatal(err)
	}
	out, err := version.CombinedOutput()
	if err != nil || !strings.Contains(string(out), imageVersion) {
		t.Errorf("version = %q, %v, want it to say %s", out, err, imageVersion)
	}
}

// Licenses want their text to go with the code, and a kubeconfig may name a server of a public authority.
func TestImageTexts(t *testing.T) {
	ours, err := os.ReadFile(filepath.Join(image.top, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(ours), image.read(t, "LICENSE")); diff != "" {
		t.Error(diff)
	}
	info, err := buildinfo.ReadFile(image.binary)
	if err != nil {
		t.Fatal(err)
	}
	theirs := image.read(t, "THIRD-PARTY-LICENSES")
	if len(info.Deps) < 10 {
		t.Errorf("the program names %d modules", len(info.Deps))
	}
	for _, module := range info.Deps {
		if !strings.Contains(theirs, "\n"+module.Path+"@"+module.Version+"/") {
			t.Errorf("no license of %s %s", module.Path, module.Version)
		}
	}
	if !strings.Contains(theirs, "\nstd@"+info.GoVersion+"/LICENSE\n") {
		t.Errorf("no license of %s", info.GoVersion)
	}
	authorities := image.read(t, "etc/ssl/certs/ca-certificates.crt")
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(authorities)) {
		t.Error("no certificate authorities")
	}
	if n := strings.Count(authorities, "BEGIN CERTIFICATE"); n < 50 {
		t.Errorf("%d certificate authorities", n)
	}
}

// An image from scratch has no loader and no libraries.
func TestImageBinaryIsStatic(t *testing.T) {
	// This test's own binary is not static, as a rule, and the check must see it: build one that surely is not.
	dynamic := filepath.Join(t.TempDir(), "dynamic")
	cmd := exec.Command("go", "build", "-buildmode=pie", "-o", dynamic, "./testdata/hello")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build a dynamic binary: %v\n%s", err, out)
	}
	if needs, err := loader(dynamic); err != nil || needs == "" {
		t.Errorf("loader of a dynamic binary = %q, %v", needs, err)
	}
	if needs, err := loader(image.binary); err != nil || needs != "" {
		t.Errorf("loader of the image's binary = %q, %v, want none", needs, err)
	}
}

// loader returns what an ELF file needs besides itself, "" if nothing.
func loader(name string) (string, error) {
	file, err := elf.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return "", err
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			libraries = append(libraries, "an interpreter")
		}
	}
	return strings.Join(libraries, " "), nil
}

// Another processor's image is as whole, and is made on this one.
func TestImageForARM(t *testing.T) {
	arm, err := buildImage(t.Context(), image.top, t.TempDir(), "022", "GOARCH=arm64")
	if err != nil {
		t.Fatal(err)
	}
	if arm.config.OS != "linux" || arm.config.Architecture != "arm64" {
		t.Errorf("the image is for %s/%s", arm.config.OS, arm.config.Architecture)
	}
	for _, fault := range contentFaults(&arm) {
		t.Error(fault)
	}
	file, err := elf.Open(arm.binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if file.Machine != elf.EM_AARCH64 {
		t.Errorf("the program is for %v", file.Machine)
	}
	if needs, err := loader(arm.binary); err != nil || needs != "" {
		t.Errorf("loader = %q, %v, want none", needs, err)
	}
}

// entry is one file or folder of an image.
type entry struct {
	mode     fs.FileMode
	uid, gid int
	time     time.Time
	sum      string // SHA-256 of its content
}

func (i *builtImage) read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(i.root, name))
	if err != nil {
		t.Fatalf("%v: the image has %q", err, slices.Sorted(maps.Keys(i.entries)))
	}
	return string(content)
}
