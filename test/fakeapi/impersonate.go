package fakeapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	accountPrefix = "system:serviceaccount:"
	// nodeNameExtra is what is known of a service account whose token is bound to a node, or to a pod on one.
	nodeNameExtra = "authentication.kubernetes.io/node-name"
	// ownNode is the verb of who acts as the node that its token is bound to.
	ownNode = "impersonate-on:associated-node:"
)

// impersonate makes the call that of the user whom the headers name. An administrator may be anybody; a service account may
// be the node that its token is bound to, as if it had the rights of deploy/base/rbac.yaml. The refusals are those of the first
// kind of impersonation that there is for the user (kubernetes KEP 5284), or of the old kind if there is none.
func (c *call) impersonate() error {
	u, nameOnly := wantedUser(c.r.Header)
	if u.Username == "" && nameOnly {
		return nil
	} else if u.Username == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("requested &user.DefaultInfo{Name:\"\", UID:%q, Groups:%#v, Extra:map[string][]string(nil)} without impersonating a user name", u.UID, u.Groups))
	}
	namespace, account, isAccount := accountOf(u.Username)
	node, isNode := strings.CutPrefix(u.Username, nodePrefix)
	isNode = isNode && len(validation.IsDNS1123Subdomain(node)) == 0
	a := c.asked()
	switch _, _, fromAccount := accountOf(c.user.Username); {
	case !isNode && !isAccount:
		a.Verb = "impersonate-on:user-info:" + a.Verb
	case isAccount && nameOnly:
		a.Verb = "impersonate-on:serviceaccount:" + a.Verb
		u.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace}
	case isAccount:
		a = Request{Verb: "impersonate", Resource: "serviceaccounts", Namespace: namespace, Name: account}
	case !nameOnly:
		a = Request{Verb: "impersonate", Resource: "users", Name: u.Username}
	default:
		u.Groups = []string{nodesGroup}
		if fromAccount && slices.Equal(c.user.Extra[nodeNameExtra], []string{node}) {
			a.Verb = ownNode + a.Verb
		} else {
			a.Verb = "impersonate-on:arbitrary-node:" + a.Verb
		}
	}
	if err := c.authorize(a); err != nil {
		return err
	}
	if u.Username == anonymousUser {
		u.Groups = append(u.Groups, unauthenticated)
	} else if !slices.Contains(u.Groups, unauthenticated) && !slices.Contains(u.Groups, authenticated) {
		u.Groups = append(u.Groups, authenticated)
	}
	c.user = u
	return nil
}

// wantedUser is the one of the headers, as they have it; without a name there is none.
func wantedUser(h http.Header) (u authenticationv1.UserInfo, nameOnly bool) {
	u = authenticationv1.UserInfo{
		Username: h.Get(authenticationv1.ImpersonateUserHeader), UID: h.Get(authenticationv1.ImpersonateUIDHeader),
		Groups: h.Values(authenticationv1.ImpersonateGroupHeader), Extra: map[string]authenticationv1.ExtraValue{},
	}
	for header, values := range h {
		if key, ok := strings.CutPrefix(header, authenticationv1.ImpersonateUserExtraHeaderPrefix); ok {
			u.Extra[strings.ToLower(key)] = values
		}
	}
	return u, u.UID == "" && len(u.Groups) == 0 && len(u.Extra) == 0
}

// accountOf is the service account that a user is.
func accountOf(user string) (namespace, name string, ok bool) {
	if user, ok = strings.CutPrefix(user, accountPrefix); ok {
		namespace, name, ok = strings.Cut(user, ":")
	}
	return namespace, name, ok
}
