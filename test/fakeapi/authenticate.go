package fakeapi

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// errNoToken is about what is no token of this server.
var errNoToken = errors.New("invalid bearer token")

// parsedAlgs are not those that are accepted: that the key decides. What is signed otherwise is no token.
var parsedAlgs = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.HS256, "none"}

// authenticateToken says whom a token stands for at these audiences, and which of them it is for: the checks of
// pkg/serviceaccount/jwt.go in their order. An error says why for nobody.
func (s *Server) authenticateToken(token string, audiences []string) (user authenticationv1.UserInfo, matched []string, err error) {
	var public jwt.Claims
	parsed, err := jwt.ParseSigned(token, parsedAlgs)
	if err != nil || parsed.UnsafeClaimsWithoutVerification(&public) != nil {
		return user, nil, errNoToken
	}
	validate := s.validateBound
	switch { // each issuer has claims of its own
	case slices.Contains(s.identity().issuers, public.Issuer):
	case public.Issuer == legacyIssuer:
		validate = s.validateLegacy
	default:
		return user, nil, errNoToken
	}
	if err := verify(parsed, s.Keys()); err != nil {
		return user, nil, err
	}
	if len(public.Audience) == 0 {
		public.Audience = s.apiAudiences()
	}
	matched = slices.DeleteFunc(slices.Clone(audiences), func(a string) bool { return !public.Audience.Contains(a) })
	if len(matched) == 0 {
		return user, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", public.Audience, audiences)
	}
	user, err = validate(token, public, parsed)
	return user, matched, err
}

// verify tries the key that the token names, or all if it names none.
func verify(token *jwt.JSONWebToken, set jose.JSONWebKeySet) error {
	keys := set.Keys
	if kid := token.Headers[0].KeyID; kid != "" {
		keys = set.Key(kid)
	}
	err := errors.New("invalid signature, no keys found")
	for _, key := range keys {
		if err = token.Claims(key.Key); err == nil {
			return nil
		}
	}
	return err
}

// validateBound checks times and references, as pkg/serviceaccount/claims.go does. The signature has been verified.
func (s *Server) validateBound(_ string, public jwt.Claims, parsed *jwt.JSONWebToken) (user authenticationv1.UserInfo, err error) {
	now := s.now()
	switch err := public.Validate(jwt.Expected{Time: now}); { // with a leeway of a minute
	case errors.Is(err, jwt.ErrExpired):
		return user, errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrNotValidYet):
		return user, errors.New("service account token is not valid yet")
	case err != nil:
		return user, errors.New("service account token is issued in the future")
	}
	var private struct {
		Kubernetes bindings `json:"kubernetes.io"`
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&private); err != nil {
		return user, err
	}
	b := private.Kubernetes
	return locked(s, func() (authenticationv1.UserInfo, error) {
		return b.user(public.ID), s.checkBindings(b, now.Add(-jwt.DefaultLeeway))
	})
}

// checkBindings wants every object that a token names to be there still, or to have ended after oldest. The node of a
// pod is not looked at. The store is locked.
func (s *Server) checkBindings(b bindings, oldest time.Time) error {
	v, err := s.store.get("serviceaccounts", named(b.Namespace, b.Account.Name))
	switch {
	case err != nil:
		return err
	case v.obj.GetUID() != b.Account.UID:
		return fmt.Errorf("service account UID (%s) does not match claim (%s)", v.obj.GetUID(), b.Account.UID)
	case endedBefore(v.obj, oldest):
		return fmt.Errorf("service account %s/%s has been deleted", b.Namespace, b.Account.Name)
	}
	if b.Pod != (boundRef{}) {
		b.Node = boundRef{}
	}
	for _, bound := range []struct {
		kind, namespace string
		ref             boundRef
	}{{"secret", b.Namespace, b.Secret}, {"pod", b.Namespace, b.Pod}, {"node", "", b.Node}} {
		if bound.ref == (boundRef{}) {
			continue
		}
		v, err := s.store.get(bound.kind+"s", named(bound.namespace, bound.ref.Name))
		switch {
		case err != nil:
			return errInvalidated
		case v.obj.GetUID() != bound.ref.UID:
			return fmt.Errorf("%s UID (%s) does not match service account %[1]s ref claim (%[3]s)", bound.kind, v.obj.GetUID(), bound.ref.UID)
		case endedBefore(v.obj, oldest):
			return errInvalidated
		}
	}
	return nil
}

var errInvalidated = errors.New("service account token has been invalidated")

func endedBefore(obj Object, t time.Time) bool {
	end := obj.GetDeletionTimestamp()
	return end != nil && end.Time.Before(t)
}

// user is whom the bindings of a token are about.
func (b bindings) user(jti string) authenticationv1.UserInfo {
	extra := map[string]authenticationv1.ExtraValue{}
	for key, value := range map[string]string{
		"credential-id": "JTI=" + jti,
		"pod-name":      b.Pod.Name, "pod-uid": string(b.Pod.UID),
		"node-name": b.Node.Name, "node-uid": string(b.Node.UID),
	} {
		if value != "" {
			extra["authentication.kubernetes.io/"+key] = authenticationv1.ExtraValue{value}
		}
	}
	return authenticationv1.UserInfo{
		Username: userOf(b.Namespace, b.Account.Name),
		UID:      string(b.Account.UID),
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + b.Namespace, "system:authenticated"},
		Extra:    extra,
	}
}

func userOf(namespace, account string) string {
	return "system:serviceaccount:" + namespace + ":" + account
}

// serveReview answers whom a credential stands for. Nothing is stored.
func (c *call) serveReview(refused error) error {
	review := map[string]func() error{"tokenreviews": c.reviewToken, "selfsubjectreviews": c.reviewSelf}[c.Resource]
	switch {
	case review == nil || c.Namespace != "" || c.Name != "":
		return errNoPath
	case refused != nil:
		return refused
	case c.Verb != "create":
		return errNoMethod
	}
	return review()
}

func (c *call) reviewToken() error {
	r := &authenticationv1.TokenReview{}
	return c.complete(r, authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), func() error {
		if r.Spec.Token == "" {
			return apierrors.NewBadRequest("token is required for TokenReview in authentication")
		}
		audiences := r.Spec.Audiences
		if len(audiences) == 0 {
			audiences = c.s.apiAudiences()
		}
		user, matched, err := c.s.authenticateToken(r.Spec.Token, audiences)
		r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: user, Audiences: matched}
		if err != nil { // said twice, it is told once
			r.Status = authenticationv1.TokenReviewStatus{Error: utilerrors.NewAggregate([]error{errNoToken, err}).Error()}
		}
		return nil
	})
}

func (c *call) reviewSelf() error {
	r := &authenticationv1.SelfSubjectReview{}
	return c.complete(r, authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"), func() error {
		r.Status.UserInfo = c.user
		return nil
	})
}

// complete answers 201 with the body, which is of a kind, once fill has completed it.
func (c *call) complete(obj runtime.Object, kind schema.GroupVersionKind, fill func() error) error {
	if err := c.decode(kind, obj); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	obj.GetObjectKind().SetGroupVersionKind(kind)
	return c.reply(http.StatusCreated, obj)
}
