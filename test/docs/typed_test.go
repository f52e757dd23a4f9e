//go:build docs

package docs

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// lasts are the commands that go on until somebody ends them, and what they have printed once the next command may come.
var lasts = map[string]*regexp.Regexp{
	"bin/fake-apiserver":           regexp.MustCompile(`serving on `),
	"go run ./test/fake-apiserver": regexp.MustCompile(`serving on `),
	"bin/token-projector run":      regexp.MustCompile(`"pod list complete"`),
	"bin/token-projector observe":  regexp.MustCompile(`"serving health"`),
}

// watches is what a command with --watch has printed once it has shown the table twice.
var watches = regexp.MustCompile(`(?s)^POD .*\nPOD `)

// less are flags that make a command do the same in less time.
var less = map[string]string{"go run ./test/fleet": " --nodes 10 --pods 1000 --for 2h"}

const (
	root        = "/run/token-projector"
	kubeletRoot = "/var/lib/kubelet"
	patience    = time.Minute // bounds every wait; nothing is timed
)

// TestTyped types the commands of each document, one after another, in a checkout on a node whose kubelet has projected tokens.
func TestTyped(t *testing.T) {
	all, err := All(top)
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string][]Command{}
	typed := 0
	for _, c := range all {
		documents[c.Document] = append(documents[c.Document], c)
		if Typed(c.Text) {
			typed++
		}
	}
	if typed < 15 {
		t.Errorf("%d commands are to be typed", typed)
	}
	for document, commands := range documents {
		if !slices.ContainsFunc(commands, func(c Command) bool { return Typed(c.Text) }) {
			continue
		}
		t.Run(document, func(t *testing.T) {
			r := newReader(t)
			for _, c := range commands {
				r.keep(c.Files)
				if Typed(c.Text) {
					r.do(c)
				}
			}
			r.endAll("")
		})
	}
}

// TestTypedFaults: what TestTyped would overlook, it would overlook here.
func TestTypedFaults(t *testing.T) {
	r := newReader(t)
	r.do(Command{Text: "bin/token-projector observe"})
	for _, c := range []struct{ text, says string }{
		{"bin/token-projector inspect --nonsense", "unknown flag: --nonsense"},
		{"curl http://127.0.0.1:9479/", "exit status 7"}, // nobody serves
		{"curl http://127.0.0.1:9477/nothing", "404"},
		{"bin/token-projector run --node-name node-1 --kubeconfig none", "none"}, // ends observe
		{"grep nothing go.mod | cat", "exit status 1"},
	} {
		if err := r.try(Command{Text: c.text}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.text, err, c.says)
		}
	}
	shown := Command{Text: "bin/token-projector inspect", Prints: "POD  VOLUME\n"}
	if err := r.try(shown); err == nil || !strings.Contains(err.Error(), "does not print") {
		t.Errorf("what is shown and not printed: %v", err)
	}
}

// reader is somebody who does what a document says.
type reader struct {
	t       *testing.T
	dir     string
	says    *strings.Replacer
	started []*terminal
}

// newReader is somebody on a node with tokens, the kubelet's and ours.
func newReader(t *testing.T) *reader {
	t.Helper()
	cover(t, "/run")
	cover(t, "/var/lib")
	cover(t, "/dev/shm")
	r := &reader{t: t, dir: checkout(t)}
	t.Cleanup(func() { r.endAll("") })
	r.keep([]File{{".curlrc", "fail\n"}}) // on a status that says so
	file := filepath.Join(t.TempDir(), "kubeconfig")
	r.says = strings.NewReplacer("NODE", "node-1", "FILE", file)
	r.do(Command{Text: "bin/fake-apiserver --demo --node NODE --kubeconfig-out FILE"})
	for _, root := range []string{kubeletRoot, root} {
		r.do(Command{Text: "bin/token-projector run --node-name NODE --kubeconfig FILE --root-dir " + root})
	}
	r.keys(file)
	r.endAll("bin/token-projector")
	tokens, err := filepath.Glob(root + "/pods/*/volumes/*/vault-token/vault-token")
	if err := errors.Join(err, os.MkdirAll("/run/secrets/vault", 0o755)); err != nil || len(tokens) != 1 {
		t.Fatalf("%q, %v", tokens, err)
	}
	r.says = strings.NewReplacer("NAMESPACE/POD", "demo/web", "NODE", "node-1", "FILE", file, "DIR", t.TempDir(),
		"UID", strings.Split(tokens[0], "/")[4], "VOLUME", "vault-token", "PATH", "vault-token")
	// As a container has it that mounts the volume.
	if err := os.Symlink(tokens[0], "/run/secrets/vault/token"); err != nil {
		t.Fatal(err)
	}
	return r
}

// keys writes what `kubectl get --raw /openid/v1/jwks` of docs/operations.md does, which test/conformance runs.
func (r *reader) keys(kubeconfig string) {
	r.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		r.t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		r.t.Fatal(err)
	}
	keys, err := client.RESTClient().Get().AbsPath("/openid/v1/jwks").DoRaw(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.keep([]File{{"keys.json", string(keys)}})
}

// keep writes the files that a document shows.
func (r *reader) keep(files []File) {
	r.t.Helper()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(r.dir, f.Name), []byte(f.Content), 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
}

// do is try, and ends the test if it fails.
func (r *reader) do(c Command) {
	r.t.Helper()
	if err := r.try(c); err != nil {
		r.t.Fatalf("%v: %v", c, err)
	}
}

// try types a command. One that goes on is left alone once it is ready; another daemon before it is ended.
func (r *reader) try(c Command) error {
	text := r.says.Replace(c.Text)
	for beginning, more := range less {
		if strings.HasPrefix(text, beginning) {
			text += more
		}
	}
	ready := watches
	if !strings.Contains(text, " --watch") {
		ready = nil
		for beginning, says := range lasts {
			if strings.HasPrefix(text, beginning) {
				ready = says
			}
		}
	}
	if ready == nil {
		out, err := r.shell(r.t.Context(), text).CombinedOutput()
		if err != nil {
			return errors.New(err.Error() + "\n" + string(out))
		}
		return c.Lacks(string(out))
	}
	if strings.HasPrefix(text, "bin/token-projector") && ready != watches {
		r.endAll("bin/token-projector")
	}
	term, err := r.start(text)
	if err != nil {
		return err
	}
	if err := r.await(term, ready); err != nil {
		return err
	}
	out, _ := os.ReadFile(term.file)
	if ready == watches {
		r.endAll(text)
	}
	return c.Lacks(string(out))
}

func (r *reader) shell(ctx context.Context, text string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", text)
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), "CURL_HOME="+r.dir)
	return cmd
}
