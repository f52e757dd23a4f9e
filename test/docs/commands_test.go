package docs

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// kind is a kind of command, and what is wrong with one of it in a directory: nobody runs it, or it would run nothing.
type kind struct {
	prefix string
	fault  func(r *tree, dir string, words []string) error
}

// kinds are all that a document may have. The first that fits counts.
var kinds = []kind{
	{"make ", (*tree).target},
	{"go test ", (*tree).tests},
	{"go run ./test/held ", (*tree).tool}, // reads what a benchmark prints
	{"kubectl ", (*tree).kubectl},
	{"install ", (*tree).systemd},
	{"systemctl ", (*tree).systemd},
	{"apt-get install ", (*tree).packages},
}

// notRun are the commands that nothing can run as they are, and why.
var notRun = map[string]string{
	"buildah push registry.example/token-projector:v0.1.0": "there is no registry; test/conformance takes apart and runs what `make image` makes",
}

// faultsOf says what is wrong with a command: nobody runs it, or it would run nothing.
func (r *tree) faultsOf(text string) error {
	if notRun[text] != "" {
		return nil
	}
	dir := "."
	for _, words := range Words(text) {
		if words[0] == "cd" && len(words) == 2 {
			dir = words[1]
			continue
		}
		if err := r.faultOf(dir, words); err != nil {
			return err
		}
	}
	return nil
}

func (r *tree) faultOf(dir string, words []string) error {
	if Typed(words[0]) || len(words) > 2 && Typed(strings.Join(words[:3], " ")) {
		return r.typed()
	}
	simple := strings.Join(words, " ") + " "
	for _, k := range kinds {
		if strings.HasPrefix(simple, k.prefix) {
			return k.fault(r, dir, words)
		}
	}
	return errors.New("nobody runs such a command")
}

// TestCommands: each command of each document is run by a test or by a step of .ci/run.
func TestCommands(t *testing.T) {
	all, err := All(top)
	if err != nil {
		t.Fatal(err)
	}
	r := readTree(t)
	kindsSeen := map[string]int{}
	used := map[string]bool{}
	for _, c := range all {
		if err := r.faultsOf(c.Text); err != nil {
			t.Errorf("%v: %v", c, err)
		}
		kindsSeen[strings.Fields(c.Text)[0]]++
		used[c.Text] = true
	}
	for _, word := range []string{"make", "go", "cd", "kubectl", "bin/token-projector", "curl"} {
		if kindsSeen[word] == 0 {
			t.Errorf("no command begins with %s: %v", word, kindsSeen)
		}
	}
	for text := range notRun {
		if !used[text] {
			t.Errorf("no document has %s", text)
		}
	}
}

// inText are commands of make that a sentence names.
var inText = regexp.MustCompile("`(make [^`]+)`")

// TestTargets: what sentences name of the Makefile is there.
func TestTargets(t *testing.T) {
	r := readTree(t)
	for target := range r.targets { // whoever calls it
		r.calls[target] = true
	}
	found := 0
	if err := each(top, func(name, text string) error {
		for _, m := range inText.FindAllStringSubmatch(text, -1) {
			found++
			if err := r.target(".", strings.Fields(m[1])); err != nil {
				t.Errorf("%s: %s: %v", name, m[1], err)
			}
		}
		return nil
	}); err != nil || found == 0 {
		t.Errorf("%d found, %v", found, err)
	}
	planted := inText.FindStringSubmatch("As `make nothing` says")
	if len(planted) != 2 || r.target(".", strings.Fields(planted[1])) == nil {
		t.Errorf("%q is not noticed", planted)
	}
}

// TestCommandFaults: what TestCommands would overlook, it would overlook here.
func TestCommandFaults(t *testing.T) {
	r := readTree(t)
	for text, says := range map[string]string{
		"reboot":                               "nobody runs such a command",
		"buildah push registry.example/other":  "nobody runs such a command",
		"go vet ./...":                         "nobody runs such a command",
		"bin/token-projector inspect | reboot": "nobody runs such a command",
		"make nothing":                         `no step of .ci/run calls the target "nothing"`,
		"make clean":                           `no step of .ci/run calls the target "clean"`,
		"make test AGAIN=1":                    "the Makefile has no variable AGAIN",
		"apt-get install git cowsay":           ".ci/run does not install cowsay",
		"go test -run '^$' -bench NoSuchThing ./projector":                    "no test matches NoSuchThing",
		"go test -run NoSuchThing ./projector":                                "no test matches NoSuchThing",
		"go test -run ThirtyDays ./nowhere":                                   "nowhere",
		"go test -run ThirtyDays ./projector -sheep 1":                        `sheep`,
		"go test -run '^TestBesideKubelet$' ./test/conformance":               "no test matches ^TestBesideKubelet$", // without its tag
		"go test -tags nonsense ./projector":                                  "with the tags [nonsense]",
		"cd test/conformance && go test -run ThirtyDays .":                    "no test matches ThirtyDays",
		"go test -run '^$' -bench Held ./projector | go run ./test/held -sum": "sum",
		"go run ./test/held/nowhere":                                          "nobody runs such a command",
	} {
		if err := r.faultsOf(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
	without := *r
	without.calls = map[string]bool{}
	for _, text := range []string{"make test", "kubectl get pods", "curl localhost", "go test -run ThirtyDays ./projector"} {
		if err := r.faultsOf(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if without.faultsOf(text) == nil {
			t.Errorf("%s: nobody runs it if .ci/run has no steps, and that is not noticed", text)
		}
	}
}

// TestRead: what a document shows is taken apart as doc.go says.
func TestRead(t *testing.T) {
	const document = `Text
    that is not indented after an empty line.

    make one    # a comment
    make two \
        A=1

Between.

~~~yaml web.yml
a: b
~~~
~~~sh
make three
~~~

~~~text
printed
~~~

More.

~~~text
not printed
~~~
~~~go
go test
~~~
`
	got, err := Read("d.md", strings.ReplaceAll(document, "~~~", "```"))
	want := []string{"d.md:4: make one", "d.md:5: make two A=1", "d.md:14: make three"}
	said := []string{}
	for _, c := range got {
		said = append(said, c.String())
	}
	if err != nil || !slices.Equal(said, want) {
		t.Fatalf("got %q, %v, want %q", said, err, want)
	}
	if last := got[2]; last.Prints != "printed\n" || fmt.Sprint(last.Files) != "[{web.yml a: b\n}]" || got[1].Prints != "" {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []string{"```\nx\n```\n", "```sh\nmake x\n"} {
		if _, err := Read("d.md", bad); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
	if got := fmt.Sprint(Words(`cd a && go test -run 'a|b' "x y"| c > d`)); got != "[[cd a] [go test -run a|b x y] [c > d]]" {
		t.Errorf("got the words %s", got)
	}
}
