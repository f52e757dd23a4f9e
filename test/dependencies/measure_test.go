//go:build dependencies

package dependencies

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/token-projector/token-projector/deploy/licenses"
)

const (
	top     = "../.."
	command = "./cmd/token-projector"
)

// target is what the figures are for, wherever they are measured.
var target = []string{"GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0"}

// sizes are bytes of the program, stripped as it is in the image.
type sizes struct {
	file    int64            // all of it
	modules map[string]int64 // by path; their sum is file
	unnamed float64          // the part of its symbols of which the module is not known
}

// measure builds the program and divides it among its modules, in proportion to their functions and data: line tables, types and
// strings, nearly half of the file, do not say whose they are.
func measure(ctx context.Context, dir string, modules []licenses.Module) (sizes, error) {
	named, stripped := filepath.Join(dir, "named"), filepath.Join(dir, "stripped")
	for name, flags := range map[string]string{named: "-w", stripped: "-s -w"} {
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", name, command)
		build.Dir = top
		build.Env = append(os.Environ(), target...)
		if out, err := build.CombinedOutput(); err != nil {
			return sizes{}, fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	info, err := os.Stat(stripped)
	if err != nil {
		return sizes{}, err
	}
	binary, err := elf.Open(named)
	if err != nil {
		return sizes{}, err
	}
	defer binary.Close()
	symbols, err := binary.Symbols()
	if err != nil {
		return sizes{}, err
	}
	return divide(info.Size(), inFile(binary, symbols), modules), nil
}

// inFile leaves out what takes no place in the file.
func inFile(binary *elf.File, symbols []elf.Symbol) map[string]uint64 {
	bytes := map[string]uint64{}
	for _, symbol := range symbols {
		if i := int(symbol.Section); i < len(binary.Sections) && binary.Sections[i].Type != elf.SHT_NOBITS {
			bytes[symbol.Name] += symbol.Size
		}
	}
	return bytes
}

func divide(file int64, symbols map[string]uint64, modules []licenses.Module) sizes {
	moduleOf := map[string]string{}
	for _, module := range modules {
		for _, name := range module.Packages {
			moduleOf[name] = module.Path
			if module.Main && strings.HasSuffix(name, strings.TrimPrefix(command, ".")) {
				moduleOf["main"] = module.Path
			}
		}
	}
	found, named, unnamed := map[string]uint64{}, uint64(0), uint64(0)
	for symbol, n := range symbols {
		if module := moduleOf[packageOf(symbol)]; module != "" {
			found[module] += n
			named += n
		} else {
			unnamed += n
		}
	}
	s := sizes{file: file, modules: map[string]int64{}, unnamed: float64(unnamed) / float64(named+unnamed)}
	for module, n := range found {
		s.modules[module] = int64(float64(file) * float64(n) / float64(named))
	}
	return s
}

// packageOf returns the import path in a symbol: k8s.io/api/core/v1 in k8s.io/api/core/v1.(*Pod).Size.
func packageOf(symbol string) string {
	for _, prefix := range []string{"type:.eq.", "type:.hash.", "go:itab.*", "go:itab."} {
		symbol = strings.TrimPrefix(symbol, prefix)
	}
	if end := strings.IndexAny(symbol, "[( "); end >= 0 {
		symbol = symbol[:end]
	}
	folder := strings.LastIndexByte(symbol, '/') + 1
	name, _, _ := strings.Cut(symbol[folder:], ".")
	return strings.ReplaceAll(symbol[:folder]+name, "%2e", ".")
}
