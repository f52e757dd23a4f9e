//go:build promises

package promises

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/token-projector/token-projector/test/daemontest"
)

// patience is how long the tests of a folder may take, on a machine with other work; one that hangs is no proof.
const patience = "10m"

// TestPromises breaks each promise, and each test that is to notice does. As the source is, all of them pass.
func TestPromises(t *testing.T) {
	memory := daemontest.MemoryDir(t)
	tests := map[string][]string{} // by folder
	for _, p := range promises {
		for _, m := range p.broken {
			t.Run(p.name+" "+m.words, func(t *testing.T) {
				t.Parallel()
				start := time.Now()
				output, err := run(memory, m.folder, []string{m.test}, "-overlay="+overlay(t, m))
				if verdict := judge(m.test, output, err); verdict != "" {
					t.Errorf("%s, with %s broken: %s\n%s", m.test, m.file, verdict, output)
				}
				t.Logf("%s noticed, %v", m.test, time.Since(start).Round(time.Second))
			})
			tests[m.folder] = append(tests[m.folder], m.test)
		}
	}
	for folder, names := range tests {
		t.Run("unbroken "+folder, func(t *testing.T) {
			t.Parallel()
			output, err := run(memory, folder, names)
			for _, name := range names {
				if err != nil || !strings.Contains(output, "--- PASS: "+name+" ") {
					t.Errorf("%s, as the source is: %v\n%s", name, err, output)
				}
			}
		})
	}
}

// TestNoProof: a break that nobody notices, and one that does not compile, are no proof.
func TestNoProof(t *testing.T) {
	const test = "TestServerClockElapsed"
	for words, broken := range map[string]string{"nothing": "package rotation // the same", "the build": "package nothing"} {
		m := mutation{words: words, file: "rotation/time.go", old: "package rotation", new: broken}
		output, err := run(t.TempDir(), "rotation", []string{test}, "-overlay="+overlay(t, m))
		if judge(test, output, err) == "" {
			t.Errorf("to break %s was taken for a proof:\n%s", words, output)
		}
	}
}

// overlay writes the broken file, and what has go build it instead of the whole one.
func overlay(t *testing.T, m mutation) string {
	t.Helper()
	whole, err := filepath.Abs(filepath.Join(top, m.file))
	must(t, err)
	raw, err := os.ReadFile(whole)
	must(t, err)
	text, err := m.apply(string(raw))
	must(t, err)
	dir := t.TempDir()
	broken, list := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(broken, []byte(text), 0o600))
	raw, err = json.Marshal(map[string]map[string]string{"Replace": {whole: broken}})
	must(t, err)
	must(t, os.WriteFile(list, raw, 0o600))
	return list
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs tests of a folder, with their files in memory. The flags are in the environment, where a go build that a test
// starts finds them, too.
func run(memory, folder string, tests []string, flags ...string) (output string, err error) {
	cmd := exec.Command("go", "test", "-count=1", "-v", "-vet=off", "-ldflags=-w", "-timeout", patience, "-run", pattern(tests), "./"+folder)
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "TMPDIR="+memory, "GOTMPDIR="+os.TempDir(), "GOFLAGS="+strings.Join(append(flags, os.Getenv("GOFLAGS")), " "))
	raw, err := cmd.CombinedOutput()
	return string(raw), err
}

// judge says why the output of a test is no proof that it notices; "" if it is one.
func judge(test, output string, err error) string {
	switch {
	case err == nil:
		return "passes"
	case !strings.Contains(output, "--- FAIL: "+test+" "):
		return fmt.Sprintf("does not fail, it breaks: %v", err)
	}
	return ""
}

// pattern matches tests, and subtests, alone.
func pattern(tests []string) string {
	var all []string
	for _, test := range tests {
		all = append(all, "^"+strings.ReplaceAll(test, "/", "$/^")+"$")
	}
	return strings.Join(all, "|")
}
