package conformance

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/token-projector/token-projector/test/cases"
)

var updateTable = flag.Bool("update", false, "write the table of cases to test/fakeapi/README.md")

const readmeFile = "../fakeapi/README.md"

// Every case on the fake and on the real server. The table in the README is what came out.
func TestCases(t *testing.T) {
	var fakeVerdicts, realVerdicts cases.Verdicts
	t.Run("fake", func(t *testing.T) {
		fake := &cases.Fake{KubectlCommand: plane.Kubectl()}
		defer fake.Close()
		fakeVerdicts = cases.OnFake(t, fake)
	})
	t.Run("real", func(t *testing.T) { realVerdicts = cases.OnReal(t, plane) })
	table := cases.Table(fakeVerdicts, realVerdicts)
	fmt.Println(table)
	if len(realVerdicts) < len(cases.All()) || len(fakeVerdicts) < len(cases.All()) {
		return // -run chose some
	}
	old, err := os.ReadFile(readmeFile)
	if err != nil {
		t.Fatal(err)
	}
	readme, err := cases.Replaced(string(old), table)
	if err != nil {
		t.Fatalf("%s: %v", readmeFile, err)
	}
	if *updateTable && !t.Failed() {
		if err := os.WriteFile(readmeFile, []byte(readme), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(string(old), readme); diff != "" {
		t.Errorf("%s is not what came out; `make cases` writes it (-file +now):\n%s", readmeFile, diff)
	}
}
