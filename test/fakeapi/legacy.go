package fakeapi

import (
	"errors"
	"fmt"
	"maps"

	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// legacyIssuer is that of long-lived tokens, which live in Secrets, and legacyClaim begins their claims.
const (
	legacyIssuer = "kubernetes/serviceaccount"
	legacyClaim  = "kubernetes.io/serviceaccount/"
)

// fillTokenSecret plays the token controller: a Secret for the token of an account gets one, which does not end by itself,
// or goes if there is no such account.
func (s *Server) fillTokenSecret(secret *corev1.Secret) {
	if secret.Type != corev1.SecretTypeServiceAccountToken {
		return
	}
	t, uid := s.table("secrets"), types.UID(secret.Annotations[corev1.ServiceAccountUIDKey])
	v, err := s.store.get("serviceaccounts", named(secret.Namespace, secret.Annotations[corev1.ServiceAccountNameKey]))
	if err != nil || uid != "" && uid != v.obj.GetUID() {
		_, _ = s.delete(t, keyOf(secret), metav1.DeleteOptions{}) // it is there
		return
	}
	filled := secret.DeepCopy()
	filled.Data = map[string][]byte{corev1.ServiceAccountNamespaceKey: []byte(secret.Namespace)}
	maps.Copy(filled.Data, secret.Data)
	filled.Data[corev1.ServiceAccountRootCAKey] = s.pki.caPEM
	if len(secret.Data[corev1.ServiceAccountTokenKey]) == 0 {
		token, _ := s.identity().sign(map[string]any{ // our own keys can sign
			"iss": legacyIssuer, "sub": userOf(secret.Namespace, v.obj.GetName()),
			legacyClaim + "namespace": secret.Namespace, legacyClaim + "secret.name": secret.Name,
			legacyClaim + "service-account.name": v.obj.GetName(), legacyClaim + "service-account.uid": v.obj.GetUID(),
		})
		s.journal.issued(token)
		filled.Data[corev1.ServiceAccountTokenKey] = []byte(token)
	}
	metav1.SetMetaDataAnnotation(&filled.ObjectMeta, corev1.ServiceAccountUIDKey, string(v.obj.GetUID()))
	s.replace(t, secret, filled)
}

// validateLegacy wants the Secret to hold this very token still, and its account to be there, as pkg/serviceaccount/legacy.go
// does, and notes the use on the Secret. The signature has been verified.
func (s *Server) validateLegacy(token string, _ jwt.Claims, parsed *jwt.JSONWebToken) (authenticationv1.UserInfo, error) {
	var claims map[string]any
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return authenticationv1.UserInfo{}, err
	}
	claim := func(name string) string { value, _ := claims[legacyClaim+name].(string); return value }
	of := bindings{Namespace: claim("namespace"), Account: boundRef{Name: claim("service-account.name"), UID: types.UID(claim("service-account.uid"))}}
	user := of.user("")
	user.Extra = nil
	return locked(s, func() (authenticationv1.UserInfo, error) {
		v, err := s.store.get("secrets", named(of.Namespace, claim("secret.name")))
		if err != nil || v.obj.GetDeletionTimestamp() != nil {
			//lint:ignore ST1005 the real server's words
			return user, errors.New("Token has been invalidated")
		}
		used := v.obj.DeepCopyObject().(*corev1.Secret)
		if string(used.Data[corev1.ServiceAccountTokenKey]) != token {
			//lint:ignore ST1005 the real server's words
			return user, errors.New("Token does not match server's copy")
		}
		account, err := s.store.get("serviceaccounts", named(of.Namespace, of.Account.Name))
		if err != nil || account.obj.GetDeletionTimestamp() != nil || account.obj.GetUID() != of.Account.UID {
			return user, fmt.Errorf("ServiceAccount %s/%s has been deleted", of.Namespace, of.Account.Name)
		}
		metav1.SetMetaDataLabel(&used.ObjectMeta, "kubernetes.io/legacy-token-last-used", s.now().UTC().Format("2006-01-02"))
		s.replace(s.table("secrets"), v.obj, used)
		return user, nil
	})
}
