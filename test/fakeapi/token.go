package fakeapi

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var tokenRequestKind = authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")

// extendedLifetime is how long an injected token really lives, while its warnafter says 3607 s.
const extendedLifetime = 365 * 24 * time.Hour

// bindings are what a token is about, looked up under one lock. The fields are in the order of the keys.
type bindings struct {
	Namespace string   `json:"namespace"`
	Node      boundRef `json:"node,omitzero"`
	Pod       boundRef `json:"pod,omitzero"`
	Secret    boundRef `json:"secret,omitzero"`
	Account   boundRef `json:"serviceaccount"`
	WarnAfter int64    `json:"warnafter,omitzero"` // Unix time
}

// boundRef is an object as claims name it.
type boundRef struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid,omitempty"`
}

// requestToken is POST serviceaccounts/NAME/token: the checks of pkg/registry/core/serviceaccount/storage/token.go in
// their order. tr is filled in place.
func (c *call) requestToken(tr *authenticationv1.TokenRequest) error {
	if err := c.checkNamespace(tr); err != nil {
		return err
	}
	if tr.Name != "" && tr.Name != c.Name {
		return apierrors.NewInvalid(tokenRequestKind.GroupKind(), c.Name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "name"), tr.Name, "must match the service account name if specified")})
	}
	tr.Spec.ExpirationSeconds = cmp.Or(tr.Spec.ExpirationSeconds, new(int64(3600)))
	to, err := locked(c.s, func() (*bindings, error) { return c.s.resolve(c.key(), tr) })
	if err != nil {
		return err
	}
	if asked, most := *tr.Spec.ExpirationSeconds, int64(c.s.opts.MaxTokenExpiration/time.Second); most > 0 && asked > most {
		tr.Spec.ExpirationSeconds = &most
		c.warn(fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", asked, most))
	}
	return c.s.issue(tr, to, c.s.now(), cmp.Or(c.fault.Token, &TokenEdit{}))
}

// resolve looks up the account and the bound object, fills the request's metadata, and validates it in between.
func (s *Server) resolve(key types.NamespacedName, tr *authenticationv1.TokenRequest) (*bindings, error) {
	v, err := s.store.get("serviceaccounts", key)
	if err != nil {
		return nil, err
	}
	uid := v.obj.GetUID()
	if tr.UID != "" && tr.UID != uid {
		return nil, apierrors.NewConflict(tokenRequestResource, key.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", tr.UID, uid))
	}
	if len(tr.Spec.Audiences) == 0 {
		tr.Spec.Audiences = slices.Clone(s.apiAudiences())
	}
	tr.Name, tr.Namespace, tr.UID = key.Name, key.Namespace, uid
	tr.Status = authenticationv1.TokenRequestStatus{}
	if err := invalid(tokenRequestKind.GroupKind(), "", validateTokenRequest(&tr.Spec)); err != nil {
		return nil, err
	}
	to := &bindings{Namespace: key.Namespace, Account: boundRef{Name: key.Name, UID: uid}}
	return to, s.bind(tr.Spec.BoundObjectRef, to)
}

func validateTokenRequest(spec *authenticationv1.TokenRequestSpec) field.ErrorList {
	if len(spec.Attestations) > 0 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "attestations"), spec.Attestations, "attestations may only be specified with a webhook bound object reference")}
	}
	return validateExpiration(*spec.ExpirationSeconds, field.NewPath("spec", "expirationSeconds"))
}

var tokenRequestResource = schema.GroupResource{Group: tokenRequestKind.Group, Resource: tokenRequestKind.Kind}

// bind looks up what the token shall be bound to. The version of the reference does not matter, its group does.
func (s *Server) bind(ref *authenticationv1.BoundObjectReference, to *bindings) error {
	if ref == nil {
		return nil
	}
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	target, ok := map[schema.GroupKind]struct {
		resource, namespace string
		ref                 *boundRef
	}{{Kind: "Pod"}: {"pods", to.Namespace, &to.Pod}, {Kind: "Node"}: {"nodes", "", &to.Node}, {Kind: "Secret"}: {"secrets", to.Namespace, &to.Secret}}[kind.GroupKind()]
	if !ok {
		return apierrors.NewBadRequest("cannot bind token to object of type " + kind.String())
	}
	v, err := s.store.get(target.resource, named(target.namespace, ref.Name))
	if err != nil {
		return err
	}
	*target.ref = boundRef{ref.Name, v.obj.GetUID()}
	if pod, ok := v.obj.(*corev1.Pod); ok {
		if pod.Spec.ServiceAccountName != to.Account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", to.Account.Name))
		}
		to.Node.Name = pod.Spec.NodeName
		if node, err := s.store.get("nodes", named("", to.Node.Name)); err == nil { // an unknown one has no UID
			to.Node.UID = node.obj.GetUID()
		}
	}
	if ref.UID != "" && ref.UID != v.obj.GetUID() {
		return apierrors.NewConflict(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, ref.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return nil
}

// issue signs the token and completes the answer. The answer's expiry is the unextended one.
func (s *Server) issue(tr *authenticationv1.TokenRequest, to *bindings, now time.Time, edit *TokenEdit) error {
	lifetime, warnAfter := s.lifetime(tr, to)
	now = now.Add(edit.Shift)
	tr.CreationTimestamp = metav1.NewTime(now)
	if edit.Lifetime != 0 {
		lifetime, warnAfter = edit.Lifetime, 0
		tr.Spec.ExpirationSeconds = new(int64(edit.Lifetime / time.Second))
	}
	if len(edit.Audiences) > 0 {
		tr.Spec.Audiences = edit.Audiences
	}
	if warnAfter > 0 {
		to.WarnAfter = now.Add(warnAfter).Unix()
	}
	token, err := s.sign(tr.Spec.Audiences, to, now, lifetime)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	s.journal.issued(token)
	if edit.Raw != nil {
		token = edit.Raw(token)
		s.journal.issued(token)
	}
	tr.Status = authenticationv1.TokenRequestStatus{
		Token:               token,
		ExpirationTimestamp: metav1.NewTime(now.Add(seconds(*tr.Spec.ExpirationSeconds))),
	}
	return nil
}

// lifetime is how long the token itself shall live; warnAfter is 0 for most. Pod-bound tokens for the API of exactly
// the lifetime that admission injects live a year, to give old clients time.
func (s *Server) lifetime(tr *authenticationv1.TokenRequest, to *bindings) (lifetime, warnAfter time.Duration) {
	lifetime = seconds(*tr.Spec.ExpirationSeconds)
	if !s.opts.NoExtension && to.Pod != (boundRef{}) && *tr.Spec.ExpirationSeconds == injectedExpiration && sets.New(s.apiAudiences()...).HasAll(tr.Spec.Audiences...) {
		return extendedLifetime, lifetime
	}
	return lifetime, 0
}

// sign makes the token.
func (s *Server) sign(audiences []string, to *bindings, now time.Time, lifetime time.Duration) (string, error) {
	id := s.identity()
	return id.sign(map[string]any{
		"aud":           audiences,
		"exp":           now.Add(lifetime).Unix(),
		"iat":           now.Unix(),
		"iss":           id.issuers[0],
		"jti":           uuid.NewUUID(),
		"kubernetes.io": to,
		"nbf":           now.Unix(),
		"sub":           userOf(to.Namespace, to.Account.Name),
	})
}
