package promises

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table into the document")

const (
	top      = "../.."
	document = top + "/docs/reliability.md"
	heading  = "## The promises, broken on purpose\n"
)

// section is what the document says of the table.
func section(all []promise) string {
	var b strings.Builder
	b.WriteString(heading + `
` + "`make promises`" + ` breaks each promise as the table says, a line or two at a time, and fails if the test that is named does not. The lines
are in ` + "`test/promises`" + `, from which this table is made.

| P | Promise | Broken so | Shown by |
|---|---|---|---|
`)
	for _, p := range all {
		for _, m := range p.broken {
			test, _, _ := strings.Cut(m.test, "/")
			fmt.Fprintf(&b, "| %s | %s. | `%s`: %s. | `%s/%s` |\n", p.name, p.words, m.file, m.words, m.folder, test)
		}
	}
	return b.String()
}

// TestDocument: the document ends with the table, as it is here.
func TestDocument(t *testing.T) {
	raw, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, got, _ := strings.Cut(string(raw), heading)
	want := section(promises)
	if *update {
		if err := os.WriteFile(document, []byte(strings.TrimRight(before, "\n")+"\n\n"+want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if heading+got != want {
		t.Errorf("%s does not end with the table of this package; write it with go test ./test/promises -update", document)
	}
}

// apply breaks the promise in a source text.
func (m mutation) apply(source string) (string, error) {
	if n := strings.Count(source, m.old); n != 1 || m.old == m.new {
		return "", fmt.Errorf("%s: the text to be broken is there %d times, or stays as it is: %q", m.file, n, m.old)
	}
	return strings.Replace(source, m.old, m.new, 1), nil
}

// TestTable: each promise is there, in order, and what breaks it is still in the source. It says what to do when a line that
// is broken on purpose has changed: break the new one.
func TestTable(t *testing.T) {
	for i, p := range promises {
		if want := fmt.Sprintf("P%d", i+1); p.name != want || len(p.broken) == 0 || len(p.broken) > 4 {
			t.Errorf("%s with %d breaks, want %s with one to four", p.name, len(p.broken), want)
		}
		for _, m := range p.broken {
			raw, err := os.ReadFile(filepath.Join(top, m.file))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.apply(string(raw)); err != nil {
				t.Error(err)
			}
		}
	}
	if len(promises) != 10 {
		t.Errorf("%d promises", len(promises))
	}
	for name, m := range map[string]mutation{"absent": {old: "c", new: "d"}, "twice": {old: "a", new: "d"}, "idle": {old: "b", new: "b"}} {
		if _, err := m.apply("aba"); err == nil {
			t.Errorf("a text that is %s was broken", name)
		}
	}
}
