package fakeapi

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	mastersGroup  = "system:masters"
	nodesGroup    = "system:nodes"
	nodePrefix    = "system:node:"
	anonymousUser = "system:anonymous"

	authenticated   = "system:authenticated"
	unauthenticated = "system:unauthenticated"
)

// publicPaths are for anybody. The documents of OpenID discovery are among them as in clusters whose tokens others shall trust.
var publicPaths = []string{"/healthz", "/livez", "/readyz", "/version", configPath, keysPath}

// errDenied is a denial without a reason.
var errDenied = errors.New("")

// asked is the request as authorization sees it: a list of one object by its name has that name.
func (c *call) asked() Request {
	a := *c.Request
	switch {
	case a.Resource == "":
		a.Verb = strings.ToLower(c.r.Method)
	case a.Verb == "list" || a.Verb == "watch":
		a.Name, _ = a.selector().RequiresExactMatch("metadata.name")
	case a.Resource == "namespaces":
		a.Namespace = a.Name
	}
	return a
}

// selector is that of the fields. Of one that cannot be read, whoever reads the options tells.
func (r *Request) selector() fields.Selector {
	query, _ := url.ParseQuery(r.Query)
	if s, err := fields.ParseSelector(query.Get("fieldSelector")); err == nil {
		return s
	}
	return fields.Everything()
}

// authorize is the error of what the user may not do: nodes are held to the Node authorizer, who has no credentials may
// read the public paths, and all others may do everything but be somebody else. Administrators may do that, too.
func (c *call) authorize(a Request) error {
	var why error
	switch node, isNode := nodeOf(c.user); {
	case slices.Contains(c.user.Groups, mastersGroup), strings.HasPrefix(a.Verb, ownNode):
	case isNode && a.Resource != "":
		why = c.s.nodeMay(node, a)
	case c.user.Username == anonymousUser && !slices.Contains(publicPaths, c.r.URL.Path), strings.HasPrefix(a.Verb, "impersonate"):
		why = errDenied
	}
	if why == nil {
		return nil
	}
	message := fmt.Sprintf("User %q cannot %s path %q", c.user.Username, a.Verb, c.r.URL.Path)
	if a.Resource != "" {
		where := "at the cluster scope"
		if a.Namespace != "" {
			where = fmt.Sprintf("in the namespace %q", a.Namespace)
		}
		message = fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", c.user.Username, a.Verb, path.Join(a.Resource, a.Subresource), a.Group, where)
	}
	if why != errDenied {
		message += ": node: " + why.Error()
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.Group, Resource: a.Resource}, a.Name, errors.New(message))
}

// nodeOf is the node that a user is.
func nodeOf(user authenticationv1.UserInfo) (string, bool) {
	node, ok := strings.CutPrefix(user.Username, nodePrefix)
	return node, ok && slices.Contains(user.Groups, nodesGroup)
}

// nodeRules are what a node may do with any object. On the real server NodeRestriction has a say in the writes.
var nodeRules = map[string][]string{
	"pods":         {"create", "delete"},
	"pods/status":  {"update", "patch"},
	"nodes":        {"create", "update", "patch"},
	"nodes/status": {"update", "patch"},
	"events":       {"create", "update", "patch"},
	"certificates.k8s.io/clustertrustbundles":  {"get", "list", "watch"},
	"authentication.k8s.io/tokenreviews":       {"create"},
	"authentication.k8s.io/selfsubjectreviews": {"create"},
}

// nodeMay is the Node authorizer (kubernetes plugin/pkg/auth/authorizer/node). Nil is yes.
func (s *Server) nodeMay(node string, a Request) error {
	resource := path.Join(a.Group, a.Resource, a.Subresource)
	reads := slices.Contains([]string{"get", "list", "watch"}, a.Verb)
	sources := resource == "secrets" || resource == "configmaps"
	selected, _ := a.selector().RequiresExactMatch("spec.nodeName")
	switch {
	case reads && resource == "nodes" && a.Name == "":
		return fmt.Errorf("node '%s' cannot read all nodes, only its own Node object", node)
	case reads && resource == "nodes" && a.Name != node:
		return fmt.Errorf("node '%s' cannot read '%s', only its own Node object", node, a.Name)
	case reads && resource == "nodes", reads && resource == "pods" && selected == node, slices.Contains(nodeRules[resource], a.Verb):
		return nil
	case reads && resource == "pods" && a.Name == "":
		return errors.New("can only list/watch pods with spec.nodeName field selector")
	case sources && !reads:
		return errors.New("can only read resources of this type")
	case sources && a.Namespace == "":
		return errors.New("can only read namespaced object of this type")
	case sources, reads && resource == "pods", resource == "serviceaccounts" && a.Verb == "get":
		return s.related(node, a)
	case a.Group != "" || a.Resource != "serviceaccounts":
		return errDenied
	case a.Verb != "create" || a.Name == "":
		return errors.New("can only create tokens for individual service accounts")
	}
	return s.related(node, a)
}

// related: the object is a pod of the node, in whatever phase, or one that such a pod refers to.
func (s *Server) related(node string, a Request) error {
	if a.Name == "" {
		return fmt.Errorf("%s", "No Object name found")
	}
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	for key, v := range s.table("pods").items {
		pod := v.obj.(*corev1.Pod)
		if key.Namespace == a.Namespace && pod.Spec.NodeName == node && refers(pod, a.Resource, a.Name) {
			return nil
		}
	}
	return fmt.Errorf("no relationship found between node '%s' and this object", node)
}

// refers: pod is the object, or refers to it. A mirror pod refers to nothing.
func refers(pod *corev1.Pod, resource, name string) bool {
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	switch {
	case resource == "pods":
		return pod.Name == name
	case mirror:
		return false
	case resource == "serviceaccounts":
		return pod.Spec.ServiceAccountName == name
	}
	spec, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&pod.Spec)
	return err == nil && names(spec, referring[resource], false, name)
}

// referring are the fields of a pod's spec that are references.
var referring = map[string][]string{
	"secrets":    {"secret", "secretRef", "secretKeyRef", "imagePullSecrets", "nodePublishSecretRef", "azureFile"},
	"configmaps": {"configMap", "configMapRef", "configMapKeyRef"},
}

// names: v, the value of a field that refers or not, refers to name, or something in it does.
func names(v any, referring []string, refers bool, name string) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return names(e, referring, refers, name) })
	case map[string]any:
		if refers && (v["name"] == name || v["secretName"] == name) {
			return true
		}
		for key, e := range v {
			if names(e, referring, slices.Contains(referring, key), name) {
				return true
			}
		}
	}
	return false
}

// admitToken is NodeRestriction (kubernetes plugin/pkg/admission/noderestriction) for TokenRequests.
func (c *call) admitToken(spec *authenticationv1.TokenRequestSpec) error {
	node, isNode := nodeOf(c.user)
	if !isNode {
		return nil
	}
	pod, err := c.boundPod(spec.BoundObjectRef)
	if err != nil {
		return err
	}
	audience := append(slices.Clone(spec.Audiences), "")[0]
	switch {
	case spec.BoundObjectRef.UID != pod.UID:
		return c.notAdmitted("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", spec.BoundObjectRef.UID)
	case pod.Spec.NodeName != node:
		return c.notAdmitted("node requested token bound to a pod scheduled on a different node")
	case len(spec.Audiences) > 1:
		return c.notAdmitted("node may only request 0 or 1 audiences")
	case !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return asksFor(v, audience) }):
		return c.notAdmitted("%s is not authorized to request tokens for audience %q", c.user.Username, audience)
	}
	return nil
}

func (c *call) notAdmitted(format string, args ...any) error {
	return apierrors.NewForbidden(schema.GroupResource{Group: c.Group, Resource: c.Resource}, c.Name, fmt.Errorf(format, args...))
}

// boundPod is the pod that a node wants a token for.
func (c *call) boundPod(ref *authenticationv1.BoundObjectReference) (*corev1.Pod, error) {
	switch {
	case ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "":
		return nil, c.notAdmitted("node requested token not bound to a pod")
	case ref.UID == "":
		return nil, c.notAdmitted("node requested token with a pod binding without a uid")
	}
	v, err := locked(c.s, func() (*version, error) { return c.s.store.get("pods", named(c.Namespace, ref.Name)) })
	if err != nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pod"}, ref.Name) // in the words of a lister
	}
	return v.obj.(*corev1.Pod), nil
}

// asksFor: a token source of the volume is for that audience.
func asksFor(v corev1.Volume, audience string) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
		return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
	})
}
