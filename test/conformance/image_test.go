package conformance

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// imageVersion is what the build is told and `token-projector version` must say.
const imageVersion = "v0.0.0-conformance"

// builtImage is what the Dockerfile makes, as far as that can be had without a container engine.
type builtImage struct {
	binary     string
	entrypoint []string
	command    []string
}

// instruction is one of a Dockerfile, with its continuation lines joined.
type instruction struct{ name, args string }

func parseDockerfile(text string) []instruction {
	var instructions []instruction
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		name, args, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name != "" && !strings.HasPrefix(name, "#") {
			instructions = append(instructions, instruction{strings.ToUpper(name), strings.TrimSpace(args)})
		}
	}
	return instructions
}

// buildImage runs the Dockerfile's build command on exactly the files that the Dockerfile copies.
func buildImage(ctx context.Context, top, dir string) (builtImage, error) {
	text, err := os.ReadFile(filepath.Join(top, "Dockerfile"))
	if err != nil {
		return builtImage{}, err
	}
	source := filepath.Join(dir, "src")
	built := builtImage{binary: filepath.Join(dir, "token-projector")}
	for _, i := range parseDockerfile(string(text)) {
		switch i.name {
		case "COPY":
			err = copyIn(top, source, i.args)
		case "RUN":
			err = runIn(ctx, source, built.binary, i.args)
		case "ENTRYPOINT":
			err = json.Unmarshal([]byte(i.args), &built.entrypoint)
		case "CMD":
			err = json.Unmarshal([]byte(i.args), &built.command)
		}
		if err != nil {
			return builtImage{}, fmt.Errorf("Dockerfile: %s %s: %w", i.name, i.args, err)
		}
	}
	if _, err := os.Stat(built.binary); err != nil {
		return builtImage{}, fmt.Errorf("the Dockerfile has built nothing: %w", err)
	}
	return built, nil
}

// copyIn does `COPY FROM... TO` from the build context; from another stage is no concern of the build.
func copyIn(top, source, args string) error {
	words := strings.Fields(args)
	if strings.HasPrefix(words[0], "--from") {
		return nil
	}
	to := filepath.Join(source, words[len(words)-1])
	for _, word := range words[:len(words)-1] {
		from := filepath.Join(top, word)
		info, err := os.Stat(from)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			err = os.CopyFS(to, os.DirFS(from))
		default:
			err = copyFile(filepath.Join(to, word), from)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, content, 0o644))
}

// runIn does `RUN`: the cache mounts are the engine's, the build arguments arrive as environment.
func runIn(ctx context.Context, source, binary, args string) error {
	var words []string
	for word := range strings.FieldsSeq(args) {
		if !strings.HasPrefix(word, "--mount=") {
			words = append(words, word)
		}
	}
	cmd := exec.CommandContext(ctx, "sh", "-ec", strings.Join(words, " "))
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "OUTPUT="+binary, "VERSION="+imageVersion, "TARGETOS=", "TARGETARCH=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
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

func TestImageSaysItsVersion(t *testing.T) {
	out, err := exec.Command(image.binary, "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), imageVersion) {
		t.Errorf("version = %q, %v, want it to say %s", out, err, imageVersion)
	}
}

func TestImageStartsTheDaemon(t *testing.T) {
	if got := strings.Join(append(image.entrypoint, image.command...), " "); got != "/token-projector run" {
		t.Errorf("the image runs %q", got)
	}
}

func TestParseDockerfile(t *testing.T) {
	const text = "# comment\nFROM a AS b\n\nRUN --mount=x \\\n  y \\\n  z\ncmd [\"run\"]\n"
	got := fmt.Sprint(parseDockerfile(text))
	if want := `[{FROM a AS b} {RUN --mount=x    y    z} {CMD ["run"]}]`; got != want {
		t.Errorf("parseDockerfile = %s, want %s", got, want)
	}
}
