package docs

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../.."

// named matches a test in a table's last column: its folder and its name.
var named = regexp.MustCompile("`([a-z0-9/-]+)/((?:Test|Fuzz|Benchmark|Example)[A-Za-z0-9_]+)`")

// faults says what is wrong with a document: rows of its tables that name no test, and tests that do not exist.
func faults(document string, exists func(folder, test string) bool) []string {
	var found []string
	rows := 0
	for line := range strings.Lines(document) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			found = append(found, missing(line, named.FindAllStringSubmatch(line, -1), exists)...)
			continue
		}
		if strings.HasPrefix(line, "|---") || strings.HasSuffix(line, "| Shown by |") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "|"), "|")
		tests := named.FindAllStringSubmatch(cells[len(cells)-1], -1)
		if len(cells) != 4 || len(tests) == 0 {
			found = append(found, fmt.Sprintf("%d cells, %d tests: %s", len(cells), len(tests), line))
		}
		found = append(found, missing(line, tests, exists)...)
	}
	if rows == 0 {
		found = append(found, "no rows")
	}
	return found
}

// missing are the tests of a line that do not exist.
func missing(line string, tests [][]string, exists func(folder, test string) bool) []string {
	var found []string
	for _, test := range tests {
		if !exists(test[1], test[2]) {
			found = append(found, fmt.Sprintf("there is no test %s in %s: %s", test[2], test[1], line))
		}
	}
	return found
}

// inTree looks for the test's function in the test files of a folder.
func inTree(t *testing.T) func(folder, test string) bool {
	return func(folder, test string) bool {
		files, err := filepath.Glob(filepath.Join(top, folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return bytes.Contains(text, []byte("\nfunc "+test+"("))
		})
	}
}

// TestCompatibility: every row of the tables names a test, and what is named exists.
func TestCompatibility(t *testing.T) {
	for _, name := range []string{"compatibility.md", "reliability.md", "security.md"} {
		text, err := os.ReadFile(filepath.Join(top, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range faults(string(text), inTree(t)) {
			t.Errorf("%s: %s", name, fault)
		}
	}
	planted := map[string]string{
		"a test that is not there": "| a | b | c | `projector/TestNoSuchThing` |",
		"a folder that is not":     "| a | b | c | `" + path.Join("nowhere", "TestCompatibility") + "` |",
		"no test":                  "| a | b | c | |",
		"no column":                "| a | b | `test/docs/TestCompatibility` |",
		"a test in the text":       "It holds (`projector/TestNoSuchThing`).\n\n| a | b | c | `test/docs/TestCompatibility` |",
		"no table":                 "",
	}
	for name, row := range planted {
		if len(faults(row, inTree(t))) != 1 {
			t.Errorf("%s was not noticed", name)
		}
	}
	if got := faults("| a | b | c | `test/docs/TestCompatibility` |", inTree(t)); len(got) > 0 {
		t.Errorf("this very test was not found: %v", got)
	}
}
