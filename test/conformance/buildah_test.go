package conformance

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	containers "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// imageVersion is what the build is told and `token-projector version` must say.
const imageVersion = "v0.0.0-conformance"

// imageName is the image's in the store that it is built into.
const imageName = "token-projector:conformance"

// builtImage is what `make image` has made, unpacked.
type builtImage struct {
	top        string // the checkout that it was built in
	tree       string // what it was made of
	root       string // its file system
	binary     string // the program, below root
	entrypoint []string
	command    []string
	config     *containers.ConfigFile
	digest, id string // of its manifest, and of its configuration
	entries    map[string]entry
}

// buildImage runs `make image` in a checkout, into a store of its own below dir, under a umask, with more variables:
// GOARCH=arm64.
func buildImage(ctx context.Context, top, dir, umask string, variables ...string) (builtImage, error) {
	tree := filepath.Join(dir, "tree")
	args := append([]string{"-c", `umask "$0" && exec make "$@"`, umask, "-C", top, "image", "BUILDER=buildah",
		"VERSION=" + imageVersion, "IMAGE=" + imageName, "IMAGE_ROOT=" + tree}, variables...)
	if err := inStore(dir, exec.CommandContext(ctx, "sh", args...)); err != nil {
		return builtImage{}, err
	}
	return unpack(ctx, top, dir, tree)
}

// rebuild makes the image of the Dockerfile from the same tree with a change.
func (i *builtImage) rebuild(ctx context.Context, dir string, change func(tree string) error) (builtImage, error) {
	tree := filepath.Join(dir, "tree")
	if out, err := exec.CommandContext(ctx, "cp", "-a", i.tree, tree).CombinedOutput(); err != nil {
		return builtImage{}, fmt.Errorf("copy the tree: %w\n%s", err, out)
	}
	if err := change(tree); err != nil {
		return builtImage{}, err
	}
	build := exec.CommandContext(ctx, "buildah", "build", "--timestamp", fmt.Sprint(i.config.Created.Unix()),
		"-t", imageName, "-f", filepath.Join(i.top, "Dockerfile"), tree)
	if err := inStore(dir, build); err != nil {
		return builtImage{}, err
	}
	return unpack(ctx, i.top, dir, tree)
}

// inStore runs a command that uses the store below dir. Plain copies of files need no file system of a special kind.
func inStore(dir string, cmd *exec.Cmd) error {
	conf := filepath.Join(dir, "storage.conf")
	content := fmt.Sprintf("[storage]\ndriver = %q\ngraphroot = %q\nrunroot = %q\n", "vfs", filepath.Join(dir, "graph"), filepath.Join(dir, "run"))
	if err := os.WriteFile(conf, []byte(content), 0o600); err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// unpack takes the image out of the store below dir.
func unpack(ctx context.Context, top, dir, tree string) (builtImage, error) {
	to := filepath.Join(dir, "oci")
	if err := inStore(dir, exec.CommandContext(ctx, "buildah", "push", imageName, "oci:"+to)); err != nil {
		return builtImage{}, err
	}
	index, err := layout.ImageIndexFromPath(to)
	if err != nil {
		return builtImage{}, err
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		return builtImage{}, fmt.Errorf("the index of the image: %v, %w", manifest, err)
	}
	packed, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return builtImage{}, err
	}
	config, err := packed.ConfigFile()
	if err != nil {
		return builtImage{}, err
	}
	id, err := packed.ConfigName()
	if err != nil {
		return builtImage{}, err
	}
	i := builtImage{
		top: top, tree: tree, root: filepath.Join(dir, "root"), config: config, entries: map[string]entry{},
		digest: manifest.Manifests[0].Digest.String(), id: id.String(),
		entrypoint: config.Config.Entrypoint, command: config.Config.Cmd,
	}
	if len(i.entrypoint) == 0 {
		return builtImage{}, errors.New("the image has no entry point")
	}
	i.binary = filepath.Join(i.root, i.entrypoint[0])
	return i, i.extract(packed)
}

// extract writes the image's files below i.root, and what its archive says of them to i.entries.
func (i *builtImage) extract(packed containers.Image) error {
	archive := mutate.Extract(packed)
	defer archive.Close()
	if err := os.Mkdir(i.root, 0o755); err != nil {
		return err
	}
	for files := tar.NewReader(archive); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		content, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		name := path.Clean(header.Name)
		info := header.FileInfo()
		i.entries[name] = entry{
			mode: info.Mode(), uid: header.Uid, gid: header.Gid, time: header.ModTime, sum: fmt.Sprintf("%x", sha256.Sum256(content)),
		}
		to := filepath.Join(i.root, name)
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(to, info.Mode().Perm())
		case tar.TypeReg:
			err = os.WriteFile(to, content, info.Mode().Perm())
		default:
			err = fmt.Errorf("%s is neither a file nor a folder", name)
		}
		if err != nil {
			return err
		}
	}
}
