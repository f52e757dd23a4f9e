package fakeapi

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// groups are what is served, as aggregated discovery has it: ordered by name, so that the core group is the first.
func (s *Server) groups() []apidiscoveryv2.APIGroupDiscovery {
	served := map[schema.GroupVersion][]apidiscoveryv2.APIResourceDiscovery{}
	for _, t := range s.store.tables {
		gv := t.res.kind.GroupVersion()
		served[gv] = append(served[gv], t.res.describe())
	}
	for _, kind := range []string{"SelfSubjectReview", "TokenReview"} {
		gv := authenticationv1.SchemeGroupVersion
		review := (&resource{name: strings.ToLower(kind) + "s", kind: gv.WithKind(kind)}).describe()
		review.Verbs = []string{"create"} // there are no objects of it
		served[gv] = append(served[gv], review)
	}
	var groups []apidiscoveryv2.APIGroupDiscovery
	for gv, resources := range served {
		slices.SortFunc(resources, func(a, b apidiscoveryv2.APIResourceDiscovery) int { return cmp.Compare(a.Resource, b.Resource) })
		groups = append(groups, apidiscoveryv2.APIGroupDiscovery{
			ObjectMeta: metav1.ObjectMeta{Name: gv.Group},
			Versions:   []apidiscoveryv2.APIVersionDiscovery{{Version: gv.Version, Resources: resources, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}},
		})
	}
	slices.SortFunc(groups, func(a, b apidiscoveryv2.APIGroupDiscovery) int { return cmp.Compare(a.Name, b.Name) })
	return groups
}

// describe is the resource with its subresources. A kind without a group is of the resource's own.
func (r *resource) describe() apidiscoveryv2.APIResourceDiscovery {
	d := apidiscoveryv2.APIResourceDiscovery{
		Resource: r.name, SingularResource: strings.ToLower(r.kind.Kind), ShortNames: r.shortNames,
		ResponseKind: &metav1.GroupVersionKind{Kind: r.kind.Kind}, Scope: apidiscoveryv2.ScopeNamespace,
		Verbs: []string{"create", "delete", "get", "list", "patch", "update", "watch"},
	}
	if !r.namespaced {
		d.Scope = apidiscoveryv2.ScopeCluster
	}
	switch r.name {
	case "pods":
		d.Categories = []string{"all"}
	case "serviceaccounts":
		kind := new(metav1.GroupVersionKind(tokenRequestKind))
		d.Subresources = []apidiscoveryv2.APISubresourceDiscovery{{Subresource: "token", ResponseKind: kind, Verbs: []string{"create"}}}
	}
	if r.hasStatus {
		d.Subresources = []apidiscoveryv2.APISubresourceDiscovery{{Subresource: "status", ResponseKind: d.ResponseKind, Verbs: []string{"get", "patch", "update"}}}
	}
	return d
}

// serveAPIs answers, in JSON alone, what clients ask to find out which resources there are, and how they may write them.
func (c *call) serveAPIs() error {
	path := strings.TrimSuffix(c.r.URL.Path, "/")
	docs, contentType := documents(c.s.groups()), runtime.ContentTypeJSON
	if strings.Contains(c.Accept, aggregatedType) && docs[path+aggregatedType] != nil { // as all clients spell it
		path, contentType = path+aggregatedType, aggregatedType
	}
	if docs[path] == nil {
		return errNoPath
	}
	return c.serveJSON(contentType, docs[path])
}

func (c *call) serveJSON(contentType string, document any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	c.begin(http.StatusOK, contentType)
	_, err = c.w.Write(body)
	return err
}

const aggregatedType = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

const openAPIPath = "/openapi/v3"

// documents are all that there are, by their path. Those of the core group have no apiVersion. The aggregated ones have
// their type after the path.
func documents(groups []apidiscoveryv2.APIGroupDiscovery) map[string]any {
	aggregated := apidiscoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}, Items: groups}
	list, resources, _ := discovery.SplitGroupsAndResources(aggregated)
	core, others := aggregated, aggregated
	core.Items, others.Items = groups[:1], groups[1:]
	docs := map[string]any{
		"/api":                   metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}, ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{}},
		"/apis":                  metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: list.Groups[1:]},
		"/api" + aggregatedType:  core,
		"/apis" + aggregatedType: others,
	}
	for _, group := range list.Groups[1:] {
		group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
		docs["/apis/"+group.Name] = group
	}
	index := map[string]any{}
	for gv, served := range resources {
		root := "/apis/" + gv.String()
		served.TypeMeta = metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}
		if gv.Group == "" {
			root, served.APIVersion = "/api/v1", ""
		}
		for i, r := range served.APIResources {
			if strings.Contains(r.Name, "/") {
				served.APIResources[i].SingularName = ""
			}
		}
		docs[root], docs[openAPIPath+root] = served, openAPI(root, gv, served.APIResources)
		index[root[1:]] = map[string]any{"serverRelativeURL": openAPIPath + root}
	}
	docs[openAPIPath] = map[string]any{"paths": index}
	return docs
}

// openAPI says no more than what kubectl wants to know before it lets the server validate: that PATCH of a kind knows
// fieldValidation.
func openAPI(root string, gv schema.GroupVersion, resources []metav1.APIResource) any {
	type object = map[string]any
	paths := object{}
	for _, r := range resources {
		at := root
		if r.Namespaced {
			at += "/namespaces/{namespace}"
		}
		if r.SingularName != "" && slices.Contains(r.Verbs, "patch") {
			paths[at+"/"+r.Name+"/{name}"] = object{"patch": object{
				"parameters":                      []object{{"name": "fieldValidation", "in": "query", "schema": object{"type": "string", "uniqueItems": true}}},
				"responses":                       object{},
				"x-kubernetes-group-version-kind": object{"group": gv.Group, "version": gv.Version, "kind": r.Kind},
			}}
		}
	}
	return object{"openapi": "3.0.0", "info": object{"title": "Kubernetes", "version": "1.37"}, "paths": paths}
}
