package conformance

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/token-projector/token-projector/test/cases"
	"github.com/token-projector/token-projector/test/conformance/controlplane"
)

// A server is restarted with another first issuer and another first key, and accepts the old ones. The daemon runs on, and
// no token that it has on disk is refused. The server is one of its own, beside that of the other tests.
func TestMigration(t *testing.T) {
	before := &cases.Flags{Issuers: []string{cases.ClusterIssuer}, Algs: []jose.SignatureAlgorithm{jose.RS256}}
	after := &cases.Flags{
		Issuers: []string{"https://migrated.example", cases.ClusterIssuer}, Algs: []jose.SignatureAlgorithm{jose.ES256, jose.RS256},
	}
	started, err := plane.Server(t.Context(), before, true)
	if err != nil {
		t.Fatal(err)
	}
	server := started.(*controlplane.Server)
	n := emptyNode(t, "node-migration")
	createNamespace(t, n.name)
	pod := createPod(t, newPod(n.name, "web", appAccount, n.name, vault(600)))
	n.startAt(t, server)
	n.awaitFiles(t, pod)
	dir := volumeDir(n.root, pod, vaultVolume)
	// The aged token may be due at once, and must not be before the server is another one.
	aged := ""
	for try := 0; try < 5 && readToken(t, dir, vaultFile) != aged; try++ {
		n.kill(t)
		aged = n.age(t, server, filepath.Join(dir, vaultFile))
		n.startAt(t, server)
		eventually(t, func() error { return n.wantMetric(2, "token_projector_adopted_tokens_total") })
	}

	r := startTokenReader(t, server, filepath.Join(dir, vaultFile))
	if refused := r.judge(r.latest() + "x"); refused == nil {
		t.Error("a forged token was not refused")
	}
	if err := server.Restart(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return issuedBy(r.latest(), after.Issuers[0], after.Algs[0]) })
	r.stop(t)
	if len(r.tokens) != 2 || issuedBy(r.tokens[0], before.Issuers[0], before.Algs[0]) != nil {
		t.Errorf("%d tokens were read, want one of the old issuer and one of the new", len(r.tokens))
	}
	if err := n.terminate(t); err != nil {
		t.Errorf("SIGTERM: %v, want exit code 0", err)
	}
	wantNoLeak(t, n.logFile, append(n.seen, r.tokens...))
}

// startAt starts the daemon as the node's at another server.
func (n *node) startAt(t *testing.T, server cases.Server) {
	t.Helper()
	config, err := server.User(n.user, "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	n.startWith(t, config)
}

// age makes a token of ten minutes one that is to be renewed within a minute, and writes it in its place.
func (n *node) age(t *testing.T, server cases.Server, file string) string {
	t.Helper()
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	claims, _ := parse(string(old))
	const limit = 480 // seconds, after which it is renewed at the latest
	issued := time.Now().Unix() - limit + 45
	claims["iat"], claims["nbf"], claims["exp"] = issued, issued, issued+600
	token, err := (&cases.World{Server: server}).Sign(jose.RS256, claims)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	n.seen = append(n.seen, token)
	return token
}

// parse returns what a token says, without a look at its signature.
func parse(token string) (claims, header map[string]any) {
	parts := strings.Split(token, ".")
	for i, into := range []*map[string]any{&header, &claims} {
		if i < len(parts) {
			raw, _ := base64.RawURLEncoding.DecodeString(parts[i])
			_ = json.Unmarshal(raw, into) // what is no token has nil
		}
	}
	return claims, header
}

// issuedBy says when the token is not of that issuer and algorithm.
func issuedBy(token, issuer string, alg jose.SignatureAlgorithm) error {
	claims, header := parse(token)
	if claims["iss"] != issuer || header["alg"] != string(alg) {
		return fmt.Errorf("a token of issuer %v by %v, want %s by %s", claims["iss"], header["alg"], issuer, alg)
	}
	return nil
}

// tokenReader reads a token file again and again, and has the server judge each token each time.
type tokenReader struct {
	file   string
	client *kubernetes.Clientset
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu     sync.Mutex
	tokens []string // different ones, in order
	faults []error
}

func startTokenReader(t *testing.T, server cases.Server, file string) *tokenReader {
	t.Helper()
	config, err := server.User("conformance-admin", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &tokenReader{file: file, client: clientFor(t, config), cancel: cancel}
	r.read()
	r.ended.Go(func() {
		for ctx.Err() == nil {
			r.read()
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	return r
}

func (r *tokenReader) read() {
	token, err := os.ReadFile(r.file)
	if err == nil {
		err = r.judge(string(token))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.faults = append(r.faults, err)
	}
	if len(r.tokens) == 0 || r.tokens[len(r.tokens)-1] != string(token) {
		r.tokens = append(r.tokens, string(token))
	}
}

// judge returns why the token is refused. While there is no server it waits for one.
func (r *tokenReader) judge(token string) error {
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{vaultAud}}}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		answer, err := r.client.AuthenticationV1().TokenReviews().Create(context.Background(), review, metav1.CreateOptions{})
		switch {
		case err != nil && time.Now().Before(deadline):
		case err != nil:
			return err
		case !answer.Status.Authenticated:
			return fmt.Errorf("refused: %s", answer.Status.Error)
		default:
			return nil
		}
	}
}

func (r *tokenReader) latest() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tokens[len(r.tokens)-1]
}

// stop ends the reading and fails the test if a token was refused.
func (r *tokenReader) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	r.ended.Wait()
	if len(r.faults) > 0 {
		t.Errorf("%d bad reads, first: %v", len(r.faults), r.faults[0])
	}
}
