package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/token-projector/token-projector/projector"
)

// verifier checks a token that is for these audiences. Its error holds nothing of the token.
type verifier func(ctx context.Context, token []byte, audiences []string) error

// errNotReviewed says that the API server did not answer whether a token is good.
var errNotReviewed = errors.New("not reviewed")

// byReview is the source of verification that asks an API server.
const byReview = "review"

// maxKeys bounds a JWKS, in bytes.
const maxKeys = 1 << 20

// validateVerify says what is wrong with the two flags.
func validateVerify(source, kubeconfig string) error {
	u, err := url.Parse(source)
	switch {
	case source == byReview && kubeconfig == "":
		return errors.New("--verify review asks an API server: name it by --kubeconfig")
	case source != byReview && kubeconfig != "":
		return errors.New("--kubeconfig is for --verify review; leave one of the two out")
	case err != nil && strings.Contains(source, "://"): // which may hold a password, and err quotes it
		return errors.New("--verify: what has :// in it must be a URL, and this is none")
	case err == nil && u.Scheme != "" && u.Scheme != "https":
		return fmt.Errorf("--verify %s: must be a file or an https URL", u.Redacted())
	}
	return nil
}

// newVerifier makes a verifier of what --verify says; nil for nothing. The keys
// are read now, and only now.
func newVerifier(source, kubeconfig string) (verifier, error) {
	switch {
	case source == "":
		return nil, nil
	case source == byReview:
		return reviewer(kubeconfig)
	}
	text, err := readKeys(source)
	if err != nil {
		return nil, fmt.Errorf("--verify: %w", err)
	}
	if u, err := url.Parse(source); err == nil && u.Scheme != "" {
		source = u.Redacted()
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, fmt.Errorf("--verify %s: not a JWKS: %w", source, err)
	}
	if len(keys.Keys) == 0 {
		return nil, fmt.Errorf("--verify %s: it holds no key; an API server's are at /openid/v1/jwks", source)
	}
	return bySignature(keys), nil
}

// readKeys reads a JWKS. What came over plain HTTP would prove nothing.
func readKeys(source string) ([]byte, error) {
	u, err := url.Parse(source)
	if err != nil || u.Scheme == "" {
		return os.ReadFile(source)
	}
	resp, err := keysClient().Get(source)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: answered %s", u.Redacted(), resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxKeys))
}

// keysClient follows a redirection to https alone.
func keysClient() *http.Client {
	return &http.Client{Timeout: requestTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if r.URL.Scheme != "https" || len(via) > 3 {
			return errors.New("it leads to plain HTTP, or in a circle")
		}
		return nil
	}}
}

func bySignature(keys jose.JSONWebKeySet) verifier {
	return func(_ context.Context, token []byte, _ []string) error {
		parsed, err := jwt.ParseSigned(string(token), projector.Algorithms())
		if err != nil {
			return errors.New("not a signed JWT")
		}
		id := parsed.Headers[0].KeyID
		candidates := keys.Key(id)
		if len(candidates) == 0 {
			return fmt.Errorf("signed by a key %q that the JWKS does not hold", id)
		}
		for _, key := range candidates {
			if parsed.Claims(key.Public(), &struct{}{}) == nil {
				return nil
			}
		}
		return errors.New("signature is wrong")
	}
}

// reviewer asks an API server, which also knows whether the pod and its account are still there.
func reviewer(kubeconfig string) (verifier, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig %s: %w", kubeconfig, err)
	}
	config.Timeout, config.QPS = requestTimeout, -1
	config.UserAgent = "token-projector/" + version
	client, err := projector.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig %s: %w", kubeconfig, err)
	}
	return func(ctx context.Context, token []byte, audiences []string) error {
		review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: strings.TrimSpace(string(token)), Audiences: audiences}}
		answer := &authenticationv1.TokenReview{}
		err := client.Core.Post().AbsPath("/apis/authentication.k8s.io/v1/tokenreviews").Body(review).Do(ctx).Into(answer)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", errNotReviewed, err)
		case !answer.Status.Authenticated:
			return fmt.Errorf("the API server refuses it: %s", answer.Status.Error)
		}
		return nil
	}, nil
}

// maxUnanswered is after how many tokens an API server that does not answer is left alone: each may take ten seconds.
const maxUnanswered = 3

// verifyOne has the token verified, if that was asked for and it is good otherwise.
func (o *inspection) verifyOne(ctx context.Context, s *sighting, t projector.FoundToken) {
	if o.check == nil || s.Expires.IsZero() || s.State == stateExpired {
		return
	}
	err := fmt.Errorf("%w: nor were others", errNotReviewed)
	if o.unanswered < maxUnanswered {
		err = o.check(ctx, t.File.Data, t.Claims.Audience)
	}
	if !errors.Is(err, errNotReviewed) {
		o.unanswered = 0
	}
	if err == nil {
		return
	}
	s.Error, s.wrong = projector.Scrub(err.Error()), true
	if s.State = stateInvalid; errors.Is(err, errNotReviewed) {
		s.State = stateUnverified
		o.unanswered++
	}
}
