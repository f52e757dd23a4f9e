package projector

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/rotation"
)

// Claims is what a projected token says of itself. Nobody has verified the
// signature: the file lies in a directory that only its pod and we can write,
// and a pod can fool nobody but itself.
type Claims struct {
	Subject    string
	Audience   []string
	AccountUID types.UID // of the service account; "" if it is not in it
	Namespace  string    // "", like PodName: it is not bound to a pod
	PodName    string
	PodUID     types.UID
	NotBefore  time.Time
	Lifetime   rotation.Lifetime // ends at warnafter where the server extended exp
}

// accountPrefix begins the subject of each service account's token.
const accountPrefix = "system:serviceaccount:"

// Algorithms are what a Kubernetes API server signs with (pkg/serviceaccount/jwt.go and
// the external signer's list).
func Algorithms() []jose.SignatureAlgorithm { return slices.Clone(algorithms) }

var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

var (
	errNotSigned  = errors.New("not a signed JWT")
	errNoLifetime = errors.New("token states no iat or no exp")
	errNoDate     = errors.New("token states an iat or an exp that no calendar has")
)

// ParseClaims reads the claims of a token without verifying its signature. The
// error never holds any of the token.
func ParseClaims(token []byte) (Claims, error) {
	// What else is in a volume may be large, and a parser copies it before it looks.
	if len(token) > maxToken || bytes.Count(token, []byte{'.'}) != 2 {
		return Claims{}, errNotSigned
	}
	parsed, err := jwt.ParseSigned(string(token), algorithms)
	if err != nil {
		return Claims{}, errNotSigned
	}
	var std jwt.Claims
	var private struct {
		Kubernetes struct {
			Namespace      string `json:"namespace"`
			ServiceAccount struct {
				UID types.UID `json:"uid"`
			} `json:"serviceaccount"`
			Pod struct {
				Name string    `json:"name"`
				UID  types.UID `json:"uid"`
			} `json:"pod"`
			WarnAfter *jwt.NumericDate `json:"warnafter"`
		} `json:"kubernetes.io"`
	}
	if parsed.UnsafeClaimsWithoutVerification(&std, &private) != nil {
		return Claims{}, errors.New("claims are not those of a service account token")
	}
	if std.IssuedAt == nil || std.Expiry == nil {
		return Claims{}, errNoLifetime
	}
	c := Claims{
		Subject: std.Subject, Audience: std.Audience,
		AccountUID: private.Kubernetes.ServiceAccount.UID,
		Namespace:  private.Kubernetes.Namespace, PodName: private.Kubernetes.Pod.Name, PodUID: private.Kubernetes.Pod.UID,
		Lifetime: rotation.Lifetime{Issued: std.IssuedAt.Time(), Expires: std.Expiry.Time()},
	}
	if std.NotBefore != nil {
		c.NotBefore = std.NotBefore.Time()
	}
	// A 3607 s token carries an exp one year away; warnafter is the honest end
	// (kubernetes/kubernetes#105801).
	if w := private.Kubernetes.WarnAfter; w != nil && w.Time().Before(c.Lifetime.Expires) {
		c.Lifetime.Expires = w.Time()
	}
	if c.Lifetime.TTL() <= 0 {
		return Claims{}, errNoLifetime
	}
	// Any number may stand in a file that a pod wrote; RFC 3339, and so JSON, knows years of four digits alone.
	if c.Lifetime.Issued.Year() < 1 || c.Lifetime.Expires.Year() >= 9999 {
		return Claims{}, errNoDate
	}
	return c, nil
}

// fits says why the token is not one for this request, or nil. A wish without
// an audience fits any: the server chose.
func (c Claims) fits(r Request) error {
	switch {
	case c.Subject != accountPrefix+r.Namespace+":"+r.ServiceAccount:
		return errors.New("token is for another service account")
	case c.PodUID != r.PodUID:
		return errors.New("token is bound to another pod")
	case r.Audience != "" && !slices.Equal(c.Audience, []string{r.Audience}):
		return errors.New("token is for another audience")
	}
	return nil
}
