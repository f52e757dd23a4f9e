// Image lays out what the container image holds beside the program, which is already there:
//
//	go run ./deploy/image ROOT
//
//	ROOT/token-projector                      read: what it is built for decides whose licenses belong to it
//	ROOT/LICENSE                              the project's
//	ROOT/THIRD-PARTY-LICENSES                 of all that is linked into the program; refused if one is not allowed
//	ROOT/etc/ssl/certs/ca-certificates.crt    the certificate authorities of a kubeconfig that names none
//
// It runs at the top of the checkout. All that is below ROOT gets the modes of an image, and the time SOURCE_DATE_EPOCH (in seconds
// since 1970, 0 if unset), so that the same commit makes the same image.
package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/token-projector/token-projector/deploy/licenses"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: image ROOT")
		os.Exit(2)
	}
	if err := layOut(context.Background(), os.Args[1], os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func layOut(ctx context.Context, root, epoch string) error {
	seconds := int64(0)
	if epoch != "" {
		var err error
		if seconds, err = strconv.ParseInt(epoch, 10, 64); err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
	}
	program, target, err := builtFrom(filepath.Join(root, "token-projector"))
	if err != nil {
		return err
	}
	modules, err := licenses.Of(ctx, ".", program, target...)
	if err != nil {
		return err
	}
	license, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"LICENSE":                           license,
		"THIRD-PARTY-LICENSES":              thirdParty(modules),
		"etc/ssl/certs/ca-certificates.crt": authorities(),
	} {
		if err := write(filepath.Join(root, name), content); err != nil {
			return err
		}
	}
	return settle(root, time.Unix(seconds, 0))
}

// builtFrom returns the package of a program, and the environment that it was built with as far as that chooses packages.
func builtFrom(binary string) (program string, target []string, err error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return "", nil, err
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "GOOS", "GOARCH", "CGO_ENABLED":
			target = append(target, setting.Key+"="+setting.Value)
		}
	}
	return info.Path, target, nil
}

func write(name string, content []byte) error {
	return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, content, 0o644))
}

// settle gives everything its mode, whatever the umask was, and the time.
func settle(root string, t time.Time) error {
	return filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if entry.IsDir() || name == filepath.Join(root, "token-projector") {
			mode = 0o755
		}
		return errors.Join(os.Chmod(name, mode), os.Chtimes(name, t, t))
	})
}
