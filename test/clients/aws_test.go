package clients

import (
	"encoding/xml"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

const (
	awsAudience = "sts.amazonaws.com"
	awsRole     = "arn:aws:iam::123456789012:role/demo"
	// awsLifetime is how long the credentials of the role live, so that the SDK wants new ones more often than the
	// token changes. The real service gives a quarter of an hour at least.
	awsLifetime = time.Second
)

// tokenService is the Security Token Service, of which it knows one action.
type tokenService struct {
	keys jose.JSONWebKeySet
	url  string

	mu     sync.Mutex
	tokens map[string]bool // that were exchanged
	count  int             // of exchanges
}

func (w *world) startTokenService() *tokenService {
	s := &tokenService{keys: w.api.Keys(), tokens: map[string]bool{}}
	server := httptest.NewServer(s)
	w.t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// The answers, as the SDK reads them.
type (
	awsAnswer struct {
		XMLName xml.Name       `xml:"AssumeRoleWithWebIdentityResponse"`
		Creds   awsCredentials `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	}
	awsCredentials struct{ AccessKeyId, SecretAccessKey, SessionToken, Expiration string }
	awsRefusal     struct {
		XMLName xml.Name `xml:"ErrorResponse"`
		Code    string   `xml:"Error>Code"`
		Message string   `xml:"Error>Message"`
	}
)

func (s *tokenService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer any = awsAnswer{Creds: awsCredentials{
		AccessKeyId: "AKID", SecretAccessKey: "secret", SessionToken: "session",
		Expiration: time.Now().Add(awsLifetime).UTC().Format(time.RFC3339Nano),
	}}
	w.Header().Set("Content-Type", "text/xml")
	if code := s.exchange(r); code != "" {
		w.WriteHeader(http.StatusBadRequest)
		answer = awsRefusal{Code: code, Message: "no"}
	}
	_ = xml.NewEncoder(w).Encode(answer) // the client will say if it misses something
}

// exchange takes a token, or says why not, in the service's codes.
func (s *tokenService) exchange(r *http.Request) (code string) {
	if r.FormValue("Action") != "AssumeRoleWithWebIdentity" || r.FormValue("RoleArn") != awsRole {
		return "InvalidAction"
	}
	token := r.FormValue("WebIdentityToken")
	switch err := s.verify(token); {
	case errors.Is(err, jwt.ErrExpired):
		return (&types.ExpiredTokenException{}).ErrorCode()
	case err != nil:
		return (&types.InvalidIdentityTokenException{}).ErrorCode()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token] = true
	s.count++
	return ""
}

// verify allows no leeway.
func (s *tokenService) verify(token string) error {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return err
	}
	var claims jwt.Claims
	if err := parsed.Claims(s.keys, &claims); err != nil {
		return err
	}
	return claims.ValidateWithLeeway(jwt.Expected{Issuer: issuer, AnyAudience: []string{awsAudience}, Time: time.Now()}, 0)
}

func (s *tokenService) exchanges() (tokens, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tokens), s.count
}

// provider is the SDK's, of a role that a token file stands for, as AWS_WEB_IDENTITY_TOKEN_FILE names one.
func (s *tokenService) provider(file string) *stscreds.WebIdentityRoleProvider {
	client := sts.New(sts.Options{
		Region: "us-east-1", BaseEndpoint: &s.url, Credentials: aws.AnonymousCredentials{}, Retryer: aws.NopRetryer{},
	})
	return stscreds.NewWebIdentityRoleProvider(client, awsRole, stscreds.IdentityTokenFile(file))
}

// TestAWS: the SDK renews its credentials with whatever is in the file by then, and is never refused.
func TestAWS(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: lifetime}, awsAudience)
	service := w.startTokenService()
	service.checkRefusals(w)
	credentials := aws.NewCredentialsCache(service.provider(w.file))
	daemontest.Eventually(t, "exchanges of renewed tokens", func() bool {
		got, err := credentials.Retrieve(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got.AccessKeyID != "AKID" {
			t.Fatalf("got the credentials %s", got.AccessKeyID)
		}
		tokens, _ := service.exchanges()
		return tokens > rotations
	})
	if tokens, count := service.exchanges(); count <= tokens {
		t.Errorf("%d exchanges of %d tokens: the credentials outlived the tokens", count, tokens)
	}
}

// checkRefusals: the service must know a bad token before its word on good ones counts.
func (s *tokenService) checkRefusals(w *world) {
	w.t.Helper()
	refused := func(what, token string, because func(error) bool) {
		w.t.Helper()
		file := filepath.Join(w.t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			w.t.Fatal(err)
		}
		if _, err := s.provider(file).Retrieve(w.ctx); err == nil || !because(err) {
			w.t.Errorf("a token %s: %v", what, err)
		}
	}
	invalid := func(err error) bool { _, ok := errors.AsType[*types.InvalidIdentityTokenException](err); return ok }
	expired := func(err error) bool { _, ok := errors.AsType[*types.ExpiredTokenException](err); return ok }
	refused("of another audience", w.planted("vault", fakeapi.TokenEdit{}), invalid)
	refused("of another server", newForeign(w.t).planted(awsAudience, fakeapi.TokenEdit{}), invalid)
	refused("that has expired", w.planted(awsAudience, fakeapi.TokenEdit{Shift: -lifetime - time.Second}), expired)
}
