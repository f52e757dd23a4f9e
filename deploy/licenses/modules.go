package licenses

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Std is the path of the module that stands for the Go standard library and runtime.
const Std = "std"

// Module is one with code in a program.
type Module struct {
	Path     string
	Version  string // as in go.mod, "" for the main module
	Main     bool   // the program's own
	Dir      string
	Packages []string // import paths of what is linked, sorted
	Texts    []Text   // none for the main module
}

// Licenses are the SPDX identifiers of the module's licenses, sorted.
func (m Module) Licenses() []string {
	ids := map[string]bool{}
	for _, text := range m.Texts {
		for _, id := range text.Licenses {
			ids[id] = true
		}
	}
	return slices.Sorted(maps.Keys(ids))
}

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath string
	Dir        string
	Standard   bool
	Module     *struct {
		Path, Version, Dir string
		Main               bool
	}
}

// Of returns the modules with code in a program, sorted by path, with all their texts. The program is a package as
// `go list` takes it in the folder dir; env is added to the environment: GOARCH=arm64. All faults of the licenses are in
// the error.
func Of(ctx context.Context, dir, program string, env ...string) ([]Module, error) {
	packages, err := list(ctx, dir, program, env)
	if err != nil {
		return nil, err
	}
	modules := map[string]*Module{}
	folders := map[string][]string{}
	for _, p := range packages {
		m := Module{Path: Std}
		switch {
		case p.Module != nil:
			m = Module{Path: p.Module.Path, Version: p.Module.Version, Main: p.Module.Main, Dir: p.Module.Dir}
		case !p.Standard:
			return nil, fmt.Errorf("package %s is of no module", p.ImportPath)
		}
		if modules[m.Path] == nil {
			modules[m.Path] = &m
		}
		modules[m.Path].Packages = append(modules[m.Path].Packages, p.ImportPath)
		// The distribution's one license is for all of the standard library. The other, of crypto/internal/boring, is for
		// object files, which are linked with GOEXPERIMENT=boringcrypto only.
		if m.Path != Std {
			folders[m.Path] = append(folders[m.Path], p.Dir)
		}
	}
	if err := findStd(ctx, modules[Std]); err != nil {
		return nil, err
	}
	var all []Module
	var faults []error
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		m := modules[path]
		slices.Sort(m.Packages)
		if !m.Main {
			m.Texts, err = textsOf(m.Dir, folders[path])
			if err != nil {
				faults = append(faults, fmt.Errorf("module %s: %w", path, err))
			}
		}
		all = append(all, *m)
	}
	return all, errors.Join(faults...)
}

func list(ctx context.Context, dir, program string, env []string) ([]listed, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-json=ImportPath,Dir,Standard,Module", program)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the packages of %s: %w\n%s", program, err, &stderr)
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("list the packages of %s: %w", program, err)
		}
		packages = append(packages, p)
	}
}

// findStd fills in what `go list` does not say of the standard library.
func findStd(ctx context.Context, std *Module) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return fmt.Errorf("find the standard library: %w", err)
	}
	root, version, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	std.Dir, std.Version = filepath.Clean(root), version
	return nil
}
