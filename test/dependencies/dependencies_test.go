//go:build dependencies

package dependencies

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/token-projector/token-projector/deploy/licenses"
)

var update = flag.Bool("update", false, "write the figures into the document")

// maxProgram is the most that every node should have to fetch and hold, in bytes.
const maxProgram = 25_000_000

// TestDependencies holds the document, the licenses and the program's size to what is built now.
func TestDependencies(t *testing.T) {
	modules, err := licenses.Of(t.Context(), top, command, target...)
	if err != nil {
		t.Fatal(err)
	}
	f := facts{direct: required(t), modules: modules}
	if f.sizes, err = measure(t.Context(), t.TempDir(), modules); err != nil {
		t.Fatal(err)
	}
	t.Logf("the program has %d bytes, of %d modules; of %.1f %% of its symbols the module is not known",
		f.sizes.file, len(modules), 100*f.sizes.unnamed)
	if f.sizes.file > maxProgram {
		t.Errorf("the program has %d bytes, more than %d", f.sizes.file, maxProgram)
	}
	// go:func.* and the like are everybody's; of a package that is not understood there would be more.
	if f.sizes.unnamed > 0.15 {
		t.Errorf("of %.1f %% of the symbols the module is not known", 100*f.sizes.unnamed)
	}

	name := filepath.Join(top, "docs", "dependencies.md")
	document, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		document = []byte(f.rewritten(string(document)))
		if err := os.WriteFile(name, document, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, fault := range f.faults(string(document)) {
		t.Errorf("docs/dependencies.md: %s", fault)
	}
}

// required are the modules that go.mod requires directly.
func required(t *testing.T) []string {
	t.Helper()
	edit := exec.Command("go", "mod", "edit", "-json")
	edit.Dir = top
	out, err := edit.Output()
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	var direct []string
	for _, r := range file.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	if len(direct) == 0 {
		t.Fatal("go.mod requires nothing")
	}
	return direct
}

// What the document may have wrong is noticed, each by itself.
func TestFaults(t *testing.T) {
	f := facts{
		direct: []string{"example.com/used", "example.com/tested"},
		modules: []licenses.Module{
			{Path: "example.com/ours", Main: true},
			{Path: "example.com/used", Texts: []licenses.Text{{Licenses: []string{"MIT", "BSD-3-Clause"}}}},
			{Path: "example.com/heavy", Texts: []licenses.Text{{Licenses: []string{"ISC"}}}},
			{Path: "example.com/light", Texts: []licenses.Text{{Licenses: []string{"ISC"}}}},
		},
		sizes: sizes{modules: map[string]int64{
			"example.com/ours": 500_000, "example.com/used": 1_000_400, "example.com/heavy": 100_000, "example.com/light": 40_000,
		}},
	}
	const whole = `
| Module | License | kB | What for |
|---|---|---|---|
| ` + "`example.com/ours`" + ` | Apache-2.0 | 500 | all |
| example.com/used | BSD-3-Clause, MIT | 1000 | a thing |
| example.com/heavy | ISC | 100 | comes along |
| all others | ISC | 40 | come along |

| Module | What for |
|---|---|
| example.com/tested | a test |
`
	if got := f.faults(whole); len(got) > 0 {
		t.Errorf("faults of a document without: %q", got)
	}
	tests := map[string]struct{ old, new, fault string }{
		"another license":         {"BSD-3-Clause, MIT", "MIT", `example.com/used: license "MIT"`},
		"a module that grew":      {"| 1000 |", "| 899 |", `example.com/used: "899" kB`},
		"a module that shrank":    {"| 1000 |", "| 1101 |", `example.com/used: "1101" kB`},
		"a small one that grew":   {"| 40 |", "| 9 |", `all others: "9" kB`},
		"no figure":               {"| 1000 |", "| |", `example.com/used: "" kB`},
		"no reason":               {"| a thing |", "| |", "example.com/used is there for nothing"},
		"no reason for a test":    {"| a test |", "| |", "example.com/tested is there for nothing"},
		"a direct one is missing": {"| example.com/tested | a test |", "", "example.com/tested is not there"},
		"a heavy one is missing":  {"| example.com/heavy | ISC | 100 | comes along |\n| all others | ISC | 40 |", "| all others | ISC | 140 |", "example.com/heavy is not there, and has 100000 bytes"},
		"no others":               {"| all others | ISC | 40 | come along |", "", "all others is not there"},
		"one that is gone":        {"| a test |", "| a test |\n| example.com/gone | a test |", "example.com/gone is required no more"},
		"one that is not in it":   {"| all |", "| all |\n| example.com/gone | MIT | 1 | a thing |", "example.com/gone is in the wrong table"},
		"one that is in it":       {"| a test |", "| a test |\n| example.com/light | a test |", "example.com/light is in the wrong table"},
	}
	for name, test := range tests {
		broken := strings.Replace(whole, test.old, test.new, 1)
		if got := f.faults(broken); broken == whole || !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, test.fault) }) {
			t.Errorf("%s: faults %q, want %q", name, got, test.fault)
		}
		if got := f.faults(f.rewritten(broken)); test.new != "" && strings.Contains(test.fault, "kB") && len(got) > 0 {
			t.Errorf("%s: faults %q after -update", name, got)
		}
	}
}

func TestPackageOf(t *testing.T) {
	for symbol, want := range map[string]string{
		"k8s.io/api/core/v1.(*Pod).Size":                    "k8s.io/api/core/v1",
		"k8s.io/api/core/v1.init.0":                         "k8s.io/api/core/v1",
		"gopkg.in/inf%2ev0.(*Dec).Add":                      "gopkg.in/inf.v0",
		"type:.eq.net/http.Server":                          "net/http",
		"go:itab.*k8s.io/api/core/v1.Pod,io.Reader":         "k8s.io/api/core/v1",
		"slices.SortFunc[go.shape.*k8s.io/api/core/v1.Pod]": "slices",
		"main.run": "main",
	} {
		if got := packageOf(symbol); got != want {
			t.Errorf("packageOf(%s) = %s, want %s", symbol, got, want)
		}
	}
}

// A module has its part of what has no name, too, and nothing is lost.
func TestDivide(t *testing.T) {
	modules := []licenses.Module{
		{Path: "example.com/ours", Main: true, Packages: []string{"example.com/ours/cmd/token-projector", "example.com/ours/a"}},
		{Path: "example.com/theirs", Packages: []string{"example.com/theirs"}},
	}
	got := divide(1000, map[string]uint64{
		"main.run": 10, "example.com/ours/a.F": 20, "example.com/theirs.G": 70, "go:func.*": 25,
	}, modules)
	if got.modules["example.com/ours"] != 300 || got.modules["example.com/theirs"] != 700 || got.unnamed != 0.2 || got.file != 1000 {
		t.Errorf("divided: %v", got)
	}
}
