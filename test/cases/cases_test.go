package cases

import (
	"os"
	"strings"
	"testing"
)

const readmeFile = "../fakeapi/README.md"

// Every case on the fake; what the README says of it there is what is so.
func TestOnFake(t *testing.T) {
	fake := &Fake{}
	defer fake.Close()
	verdicts := OnFake(t, fake)
	readme, err := os.ReadFile(readmeFile)
	if err != nil {
		t.Fatal(err)
	}
	table, err := InReadme(string(readme))
	if err != nil {
		t.Fatalf("%s: %v", readmeFile, err)
	}
	for _, c := range All() {
		v, ran := verdicts[c.FullName()]
		if row := "| " + cell(c.Name) + " | " + string(v) + " | "; ran && v != Failed && !strings.Contains(table, row) {
			t.Errorf("%s has no row %q: `make cases` writes it", readmeFile, row)
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range All() {
		if seen[c.FullName()] {
			t.Errorf("two cases are called %q", c.FullName())
		}
		seen[c.FullName()] = true
	}
	if len(seen) == 0 {
		t.Error("no cases")
	}
}
