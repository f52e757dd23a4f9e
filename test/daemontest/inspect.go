package daemontest

import (
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// saying is a text that a daemon is the cause of.
type saying struct{ where, text string }

// answers are the paths that are asked for at the end, on both ports, whether or not the daemon has something there.
var answers = []string{
	"/", "/api/v1/status", "/metrics", "/healthz", "/readyz", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/heap?debug=1",
	"/debug/pprof/heap?debug=2", "/debug/pprof/allocs?debug=1", "/debug/pprof/goroutine?debug=1", "/debug/pprof/goroutine?debug=2",
}

// inspect asks a daemon that runs for all it has to say.
func (p *Process) inspect() {
	select {
	case <-p.exited:
		return
	default:
	}
	client := http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for _, address := range []string{p.Metrics, p.Health} {
		for _, path := range answers {
			resp, err := client.Get("http://" + address + path)
			if err != nil {
				break // it has never served, is stopped, or is ending
			}
			body, _ := io.ReadAll(resp.Body) // what came of it
			resp.Body.Close()
			p.search(saying{"GET " + path, string(body)})
		}
	}
}

// events are what the pods were told.
func (p *Process) events() saying {
	events, err := fakeapi.List[*corev1.Event](p.api, "")
	if err != nil {
		p.t.Error(err)
	}
	text, err := json.Marshal(events)
	if err != nil {
		p.t.Error(err)
	}
	return saying{"events", string(text)}
}

// outside reads the files below a root that are in no volume. A root that is not there has none.
func outside(root string) (files []saying) {
	volumes := filepath.Join(root, "pods", "*", "volumes", "*", "*")
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if is, _ := filepath.Match(volumes, path); is || err != nil {
			return fs.SkipDir
		}
		if d.Type().IsRegular() {
			text, err := os.ReadFile(path)
			if err == nil {
				files = append(files, saying{path, string(text)})
			}
		}
		return nil
	})
	return files
}

// wantNothingIn fails the test if the daemon has left anything in its working directory, which is its place for temporary
// files, too, and where a core file would be.
func (p *Process) wantNothingIn(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		p.t.Errorf("the daemon left %v in its working directory (%v)", entries, err)
	}
}

// known are the secrets of each server: those that run daemons by the hundred search for thousands of tokens.
var known sync.Map // *fakeapi.Server -> *issued

type issued struct {
	mu sync.Mutex
	Secrets
	tokens int // that are in Secrets
}

// learn takes in all that was issued since, and the values of Secrets, and returns the latest of each.
func (s *issued) learn(api *fakeapi.Server) (latest []string, err error) {
	tokens := api.TokenBytes()
	for _, token := range tokens[s.tokens:] {
		s.Add(string(token))
	}
	if s.tokens = len(tokens); s.tokens > 0 && len(parts(string(tokens[s.tokens-1]))) > 0 {
		latest = append(latest, string(tokens[s.tokens-1]))
	}
	secrets, err := fakeapi.List[*corev1.Secret](api, "")
	for _, secret := range secrets {
		for _, value := range secret.Data {
			if strings.HasPrefix(string(value), "-----BEGIN CERTIFICATE") || len(parts(string(value))) == 0 {
				continue
			}
			s.Add(string(value))
			latest = append(latest, string(value))
		}
	}
	return latest, err
}

// credentials are what a kubeconfig, and the files that it names, identify the daemon with.
func credentials(kubeconfig string) (out []string, err error) {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil, err
	}
	for _, user := range config.AuthInfos {
		for _, file := range []string{user.ClientKey, user.TokenFile} {
			if content, err := os.ReadFile(file); err == nil {
				out = append(out, string(content))
			}
		}
		for _, content := range []string{string(user.ClientKeyData), user.Token, user.Password} {
			if content != "" {
				out = append(out, content)
			}
		}
	}
	return out, nil
}

// secrets are those of the daemon's server, and its own. They are locked.
func (p *Process) secrets() (s *issued, latest []string) {
	v, _ := known.LoadOrStore(p.api, &issued{})
	s = v.(*issued)
	s.mu.Lock()
	latest, err := s.learn(p.api)
	if err != nil {
		p.t.Error(err)
	}
	for _, credential := range p.credentials {
		s.Add(credential)
	}
	return s, append(latest, p.credentials...)
}

// search fails the test if there is a secret in what the daemon said.
func (p *Process) search(texts ...saying) {
	p.t.Helper()
	s, _ := p.secrets()
	defer s.mu.Unlock()
	for _, said := range texts {
		if n, where := s.In(said.text); n > 0 {
			p.leaked.Store(true)
			p.t.Errorf("%d secrets in %s, one after %q", n, said.where, where)
		}
	}
}

// searchAll searches what the daemon has printed and left behind. Then it plants a secret of each kind in the same stream, and
// must find them.
func (p *Process) searchAll() {
	p.t.Helper()
	own, err := credentials(p.kubeconfig)
	if err != nil || len(own) == 0 {
		p.t.Errorf("no credential of the daemon's is known: %v", err)
	}
	p.credentials = append(p.credentials, own...)
	printed := p.output.String()
	p.search(append(outside(p.root), p.events(), saying{"output", printed})...)
	s, planted := p.secrets()
	defer s.mu.Unlock()
	for _, secret := range planted {
		p.output.Write([]byte("planted: " + secret + "\n"))
		stream := p.output.String()
		if n, where := s.In(stream[len(printed):]); n == 0 || !strings.HasPrefix(where, "planted: ") && !strings.Contains(secret, "\n") {
			p.t.Errorf("a secret of %d bytes that was planted in the output is not found", len(secret))
		}
		printed = stream
	}
}
