package clients

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// issuer is the fake server's by default, and a name of its certificate.
const issuer = "https://kubernetes.default.svc.cluster.local"

// TestGoOIDC: a relying party, which trusts the issuer's discovery documents and nothing else, takes what is in the
// file at any moment.
func TestGoOIDC(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: lifetime}, "vault")
	provider, err := oidc.NewProvider(oidc.ClientContext(w.ctx, w.inCluster()), issuer)
	if err != nil {
		t.Fatal(err)
	}
	vault := provider.Verifier(&oidc.Config{ClientID: "vault"})
	w.checkRefusals(vault)
	seen := map[string]bool{}
	daemontest.Eventually(t, "rotations", func() bool {
		token := string(w.read())
		seen[token] = true
		id, err := vault.Verify(w.ctx, token)
		if err != nil {
			t.Fatalf("token %d: %v", len(seen), err)
		}
		if id.Subject != account {
			t.Fatalf("token %d is of %s", len(seen), id.Subject)
		}
		return len(seen) > rotations
	})
}

// checkRefusals: the verifier must know a bad token before its word on good ones counts.
func (w *world) checkRefusals(vault *oidc.IDTokenVerifier) {
	w.t.Helper()
	refused := func(what, token string, because func(error) bool) {
		w.t.Helper()
		if _, err := vault.Verify(w.ctx, token); err == nil || !because(err) {
			w.t.Errorf("a token %s: %v", what, err)
		}
	}
	says := func(text string) func(error) bool {
		return func(err error) bool { return strings.Contains(err.Error(), text) }
	}
	isExpired := func(err error) bool { _, ok := errors.AsType[*oidc.TokenExpiredError](err); return ok }
	other := newForeign(w.t)
	if _, err := vault.Verify(w.ctx, w.planted("vault", fakeapi.TokenEdit{})); err != nil {
		w.t.Errorf("a good token: %v", err)
	}
	refused("of another audience", w.planted("elsewhere", fakeapi.TokenEdit{}), says("expected audience"))
	refused("that has expired", w.planted("vault", fakeapi.TokenEdit{Shift: -lifetime - time.Second}), isExpired)
	refused("of another server", other.planted("vault", fakeapi.TokenEdit{}), says("failed to verify signature"))
}

// newForeign is an API server with keys of its own, and no daemon.
func newForeign(t *testing.T) *world {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	return &world{t: t, ctx: t.Context(), api: api}
}

// inCluster is an HTTP client that finds the API server by the name of its service, and trusts only its CA.
func (w *world) inCluster() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(w.api.CA())
	address := strings.TrimPrefix(w.api.URL(), "https://")
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
