package fakeapi

import (
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var tokenRequestKind = authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")

// extendedLifetime is how long an injected token really lives, while its warnafter says 3607 s.
const extendedLifetime = 365 * 24 * time.Hour

// subject is what a token is about, looked up under one lock.
type subject struct {
	account           *corev1.ServiceAccount
	pod, secret, node *boundRef
}

// boundRef is an object as claims name it.
type boundRef struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid,omitempty"`
}

// requestToken is POST serviceaccounts/NAME/token: the checks of pkg/registry/core/serviceaccount/storage/token.go in
// their order. tr is filled in place. warnings are for Warning headers.
func (s *Server) requestToken(namespace, name string, tr *authenticationv1.TokenRequest, edit *TokenEdit) (warnings []string, err error) {
	if tr.Namespace != "" && tr.Namespace != namespace {
		return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if tr.Name != "" && tr.Name != name {
		return nil, apierrors.NewInvalid(tokenRequestKind.GroupKind(), name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "name"), tr.Name, "must match the service account name if specified")})
	}
	setDefault(&tr.Spec.ExpirationSeconds, 3600)
	now := s.now()
	sub, err := locked(s, func() (*subject, error) { return s.resolve(named(namespace, name), tr, now) })
	if err != nil {
		return nil, err
	}
	warnings = s.clamp(tr)
	return warnings, s.issue(tr, sub, now, edit)
}

// resolve looks up the account and the bound object, fills the request's metadata, and validates it in between.
func (s *Server) resolve(key types.NamespacedName, tr *authenticationv1.TokenRequest, now time.Time) (*subject, error) {
	v, err := s.store.get("serviceaccounts", key)
	if err != nil {
		return nil, err
	}
	account := v.obj.(*corev1.ServiceAccount)
	if uid := account.UID; tr.UID != "" && tr.UID != uid {
		return nil, apierrors.NewConflict(tokenRequestResource, key.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", tr.UID, uid))
	}
	if len(tr.Spec.Audiences) == 0 {
		tr.Spec.Audiences = append([]string(nil), s.opts.APIAudiences...)
	}
	tr.Name, tr.Namespace, tr.UID = key.Name, key.Namespace, account.UID
	tr.CreationTimestamp = metav1.NewTime(now)
	tr.Status = authenticationv1.TokenRequestStatus{}
	if err := invalid(tokenRequestKind.GroupKind(), "", validateTokenRequest(&tr.Spec)); err != nil {
		return nil, err
	}
	sub := &subject{account: account}
	return sub, s.bind(tr.Spec.BoundObjectRef, sub)
}

func validateTokenRequest(spec *authenticationv1.TokenRequestSpec) field.ErrorList {
	if len(spec.Attestations) > 0 {
		return field.ErrorList{field.Invalid(field.NewPath("spec", "attestations"), spec.Attestations, "attestations may only be specified with a webhook bound object reference")}
	}
	return validateExpiration(*spec.ExpirationSeconds, field.NewPath("spec", "expirationSeconds"))
}

var tokenRequestResource = schema.GroupResource{Group: tokenRequestKind.Group, Resource: tokenRequestKind.Kind}

// bind looks up what the token shall be bound to. The version of the reference does not matter, its group does.
func (s *Server) bind(ref *authenticationv1.BoundObjectReference, sub *subject) error {
	if ref == nil {
		return nil
	}
	kind := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	resource, ok := map[schema.GroupKind]string{{Kind: "Pod"}: "pods", {Kind: "Node"}: "nodes", {Kind: "Secret"}: "secrets"}[kind.GroupKind()]
	if !ok {
		return apierrors.NewBadRequest("cannot bind token to object of type " + kind.String())
	}
	key := named(sub.account.Namespace, ref.Name)
	if resource == "nodes" {
		key.Namespace = ""
	}
	v, err := s.store.get(resource, key)
	if err != nil {
		return err
	}
	if err := s.bindTo(v.obj, sub); err != nil {
		return err
	}
	if ref.UID != "" && ref.UID != v.obj.GetUID() {
		return apierrors.NewConflict(schema.GroupResource{Group: kind.Group, Resource: kind.Kind}, ref.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return nil
}

func (s *Server) bindTo(obj Object, sub *subject) error {
	bound := &boundRef{Name: obj.GetName(), UID: obj.GetUID()}
	switch o := obj.(type) {
	case *corev1.Secret:
		sub.secret = bound
	case *corev1.Node:
		sub.node = bound
	case *corev1.Pod:
		if o.Spec.ServiceAccountName != sub.account.Name {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", sub.account.Name))
		}
		sub.pod = bound
		sub.node = s.nodeOf(o)
	}
	return nil
}

// nodeOf is the node that a pod's token names: without a UID if the node is unknown.
func (s *Server) nodeOf(pod *corev1.Pod) *boundRef {
	if pod.Spec.NodeName == "" {
		return nil
	}
	ref := &boundRef{Name: pod.Spec.NodeName}
	if v, err := s.store.get("nodes", named("", ref.Name)); err == nil {
		ref.UID = v.obj.GetUID()
	}
	return ref
}

// clamp shortens the lifetime to the server's maximum.
func (s *Server) clamp(tr *authenticationv1.TokenRequest) (warnings []string) {
	most := int64(s.opts.MaxTokenExpiration / time.Second)
	if asked := *tr.Spec.ExpirationSeconds; most > 0 && asked > most {
		tr.Spec.ExpirationSeconds = &most
		warnings = append(warnings, fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", asked, most))
	}
	return warnings
}

// issue signs the token and completes the answer. The answer's expiry is the unextended one.
func (s *Server) issue(tr *authenticationv1.TokenRequest, sub *subject, now time.Time, edit *TokenEdit) error {
	lifetime, warnAfter := s.lifetime(tr, sub)
	if edit != nil {
		now = now.Add(edit.Shift)
		tr.CreationTimestamp = metav1.NewTime(now)
		if edit.Lifetime != 0 {
			lifetime, warnAfter = edit.Lifetime, 0
			asked := int64(edit.Lifetime / time.Second)
			tr.Spec.ExpirationSeconds = &asked
		}
		if len(edit.Audiences) > 0 {
			tr.Spec.Audiences = edit.Audiences
		}
	}
	token, err := s.signer.sign(s.claims(tr, sub, now, lifetime, warnAfter))
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to generate token: %w", err))
	}
	s.journal.issued(token)
	if edit != nil && edit.Raw != nil {
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
func (s *Server) lifetime(tr *authenticationv1.TokenRequest, sub *subject) (lifetime, warnAfter time.Duration) {
	lifetime = seconds(*tr.Spec.ExpirationSeconds)
	if !s.opts.NoExtension && sub.pod != nil && *tr.Spec.ExpirationSeconds == injectedExpiration && subset(tr.Spec.Audiences, s.opts.APIAudiences) {
		return extendedLifetime, lifetime
	}
	return lifetime, 0
}

func (s *Server) claims(tr *authenticationv1.TokenRequest, sub *subject, now time.Time, lifetime, warnAfter time.Duration) map[string]any {
	private := map[string]any{
		"namespace":      sub.account.Namespace,
		"serviceaccount": boundRef{Name: sub.account.Name, UID: sub.account.UID},
	}
	for name, ref := range map[string]*boundRef{"pod": sub.pod, "secret": sub.secret, "node": sub.node} {
		if ref != nil {
			private[name] = ref
		}
	}
	if warnAfter > 0 {
		private["warnafter"] = now.Add(warnAfter).Unix()
	}
	return map[string]any{
		"aud":           tr.Spec.Audiences,
		"exp":           now.Add(lifetime).Unix(),
		"iat":           now.Unix(),
		"iss":           s.opts.Issuer,
		"jti":           string(uuid.NewUUID()),
		"kubernetes.io": private,
		"nbf":           now.Unix(),
		"sub":           "system:serviceaccount:" + sub.account.Namespace + ":" + sub.account.Name,
	}
}
