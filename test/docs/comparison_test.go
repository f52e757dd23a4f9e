package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// cited matches a link that a claim may rest on: to source or an issue elsewhere, or to a figure of ours.
	cited = regexp.MustCompile(`\]\((https://|(?:performance|reliability|compatibility|metrics)\.md)`)
	// source matches a link to source on GitHub: its revision.
	source = regexp.MustCompile(`\]\(https://github\.com/[^/)]+/[^/)]+/(?:blob|tree)/([^/)]+)`)
	// fixed is a revision that stays what it was.
	fixed = regexp.MustCompile(`^([0-9a-f]{40}|v\d+\.\d+\.\d+)$`)
)

// unfounded says what is wrong with a comparison: rows of its tables that cite nothing or are as no others, links to source that
// moves, and a document without tables.
func unfounded(document string) []string {
	var found []string
	rows, columns := 0, 0
	for line := range strings.Lines(document) {
		line = strings.TrimSpace(line)
		for _, link := range source.FindAllStringSubmatch(line, -1) {
			if !fixed.MatchString(link[1]) {
				found = append(found, fmt.Sprintf("a link to %s, which will be another tomorrow: %s", link[1], line))
			}
		}
		cells := len(strings.Split(strings.Trim(line, "|"), "|"))
		switch {
		case !strings.HasPrefix(line, "|"):
			columns = 0
		case columns == 0: // the head of a table
			columns = cells
		case cells != columns:
			found = append(found, fmt.Sprintf("%d cells, not %d: %s", cells, columns, line))
		case strings.HasPrefix(line, "|---"):
		default:
			rows++
			if !cited.MatchString(line) {
				found = append(found, "nothing is cited: "+line)
			}
		}
	}
	if rows == 0 {
		found = append(found, "no rows")
	}
	return found
}

// TestComparison: every row of docs/comparison.md leads to a figure, to source at a fixed revision, or to an issue.
func TestComparison(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "docs", "comparison.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range unfounded(string(text)) {
		t.Error(fault)
	}
	const head = "| peer | files |\n|---|---|\n"
	row := "| [a](https://github.com/o/r/blob/" + strings.Repeat("0a", 20) + "/f.go) | b |\n"
	planted := map[string]string{
		"a row that cites nothing":   head + row + "| a | b |\n",
		"a row with a cell too many": head + row + "| [a](performance.md#a) | b | c |\n",
		"a link to a branch":         head + "| [a](https://github.com/o/r/blob/main/f.go) | b |\n",
		"a branch in the text":       "[a](https://github.com/o/r/tree/master/d)\n\n" + head + row,
		"an email for a citation":    head + "| [a](mailto:a@example.org) | b |\n",
		"no table":                   "[a](https://example.org)\n",
		"no row":                     head,
	}
	for name, document := range planted {
		if len(unfounded(document)) != 1 {
			t.Errorf("%s was not noticed: %q", name, unfounded(document))
		}
	}
	if got := unfounded(head + row + "| [a](reliability.md#crashes) | b |\n\n" + head + row); len(got) > 0 {
		t.Errorf("what is well was not: %q", got)
	}
}
