package docs

import (
	"errors"
	"fmt"
	"go/build"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// tree is the repository, as far as it says what is run.
type tree struct {
	run     string            // .ci/run
	targets map[string]string // of the Makefile: what comes before each
	calls   map[string]bool   // targets that .ci/run calls, and what comes before them
	makes   string            // the Makefile
	exists  func(folder, test string) bool
}

func readTree(t *testing.T) *tree {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	r := &tree{run: read(".ci/run"), makes: read("Makefile"), targets: map[string]string{}, calls: map[string]bool{}, exists: inTree(t)}
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):([a-z0-9 -]*)(?:##.*)?$`).FindAllStringSubmatch(r.makes, -1) {
		r.targets[m[1]] = m[2]
	}
	for _, m := range regexp.MustCompile(`\bmake (?:-\S+ )*([a-z0-9-]+)`).FindAllStringSubmatch(r.run, -1) {
		r.call(m[1])
	}
	if strings.Contains(read("test/conformance/buildah_test.go"), `"-C", top, "image"`) && r.calls["conformance"] {
		r.call("image")
	}
	for target, before := range r.targets { // with a recipe that is nothing but others
		all := strings.Fields(before)
		if len(all) > 0 && !slices.ContainsFunc(all, func(b string) bool { return !r.calls[b] }) && !regexp.MustCompile(`(?m)^`+target+`:.*\n\t`).MatchString(r.makes) {
			r.calls[target] = true
		}
	}
	return r
}

func (r *tree) call(target string) {
	r.calls[target] = true
	for _, before := range strings.Fields(r.targets[target]) {
		r.call(before)
	}
}

// target: .ci/run calls it, and the Makefile knows the variables.
func (r *tree) target(_ string, words []string) error {
	var faults []error
	for _, w := range words[1:] {
		name, _, is := strings.Cut(w, "=")
		switch {
		case !is && !r.calls[w]:
			faults = append(faults, fmt.Errorf("no step of .ci/run calls the target %q", w))
		case is && !regexp.MustCompile(`(?m)(^`+name+`\s*[?:]?=|\$\(`+name+`\))`).MatchString(r.makes):
			faults = append(faults, fmt.Errorf("the Makefile has no variable %s", name))
		}
	}
	return errors.Join(faults...)
}

// packages: a machine on which .ci/run runs has them.
func (r *tree) packages(_ string, words []string) error {
	line := regexp.MustCompile(`apt-get install .*--no-install-recommends (.*)`).FindStringSubmatch(r.run)
	if line == nil {
		return errors.New(".ci/run installs nothing")
	}
	for _, name := range words[2:] {
		if !slices.Contains(append(strings.Fields(line[1]), "git", "make"), name) {
			return fmt.Errorf(".ci/run does not install %s", name)
		}
	}
	return nil
}

// tool: a program whose tests run it as a function, by the flags that it is given.
func (r *tree) tool(dir string, words []string) error {
	files, err := filepath.Glob(filepath.Join(top, dir, words[2], "*.go"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no program in %s (%v)", words[2], err)
	}
	return has(files, "func main\\(\\)", words[3:])
}

// testRun is a command of go test.
type testRun struct {
	tags                      []string
	patterns, flags, packages []string // flags are the tests' own
}

func parseTestRun(words []string) (c testRun) {
	for i := 2; i < len(words); i++ {
		value := words[min(i+1, len(words)-1)]
		switch w := words[i]; {
		case w == "-v" || w == "-benchmem" || strings.HasPrefix(w, "-count="):
			continue
		case w == "-tags":
			c.tags = strings.Split(value, ",")
		case w == "-run" || w == "-bench":
			c.patterns = append(c.patterns, value)
		case w == "-benchtime" || w == "-timeout":
		case strings.HasPrefix(w, "-"):
			c.flags = append(c.flags, w)
		default:
			c.packages = append(c.packages, w)
			continue
		}
		i++
	}
	return c
}

// tests: the patterns match a test or benchmark of the packages, and .ci/run tests with such tags.
func (r *tree) tests(dir string, words []string) error {
	c := parseTestRun(words)
	by := "test"
	if dir != "." {
		by = filepath.Base(dir)
	}
	if !r.calls[by] || len(c.tags) > 0 && !strings.Contains(r.run+r.makes, "-tags "+strings.Join(c.tags, ",")+" ") {
		return fmt.Errorf("no step of .ci/run tests in %s with the tags %v", dir, c.tags)
	}
	if slices.Equal(words, []string{"go", "test", "-count=1", "-timeout", "40m", "./..."}) { // as the Makefile does
		return nil
	}
	context := build.Default
	context.BuildTags = c.tags
	var files []string
	for _, p := range c.packages {
		found, err := context.ImportDir(filepath.Join(top, dir, p), 0)
		if err != nil {
			return err
		}
		for _, name := range slices.Concat(found.TestGoFiles, found.XTestGoFiles) {
			files = append(files, filepath.Join(top, dir, p, name))
		}
	}
	for _, pattern := range c.patterns {
		if pattern, _, _ = strings.Cut(pattern, "/"); pattern != "^$" {
			if err := matches(files, pattern); err != nil {
				return err
			}
		}
	}
	if len(c.flags) == 0 {
		return nil
	}
	return has(files, "", c.flags)
}

// typed: TestTyped runs it, as `make docs`.
func (r *tree) typed() error {
	return r.shown("docs", "test/docs", "TestTyped")
}

// kubectl: TestKubectl runs it, against the real API server.
func (r *tree) kubectl(string, []string) error {
	return r.shown("conformance", "test/conformance", "TestKubectl")
}

// systemd: TestSystemd runs it, with a systemd of its own.
func (r *tree) systemd(string, []string) error {
	return r.shown("e2e", "test/e2e", "TestSystemd")
}

// shown: .ci/run calls the target, and the folder has the test.
func (r *tree) shown(target, folder, test string) error {
	if !r.calls[target] || !r.exists(folder, test) {
		return fmt.Errorf("%s of %s does not run it, or no step of .ci/run calls the target %q", test, folder, target)
	}
	return nil
}

var function = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)

// matches says that no test or benchmark of the files has a name which the pattern matches.
func matches(files []string, pattern string) error {
	p, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			if p.MatchString(m[1]) {
				return nil
			}
		}
	}
	return fmt.Errorf("no test matches %s", pattern)
}

// has says that the files together lack something, or the definition of a flag.
func has(files []string, what string, words []string) error {
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		all.Write(text)
	}
	wanted := []string{what}
	for _, w := range words {
		if name := strings.TrimLeft(w, "-"); name != w {
			wanted = append(wanted, `\(([^"\n]*, )?"`+name+`", `)
		}
	}
	for _, w := range wanted {
		if !regexp.MustCompile(w).MatchString(all.String()) {
			return fmt.Errorf("nothing there is like %s", w)
		}
	}
	return nil
}
