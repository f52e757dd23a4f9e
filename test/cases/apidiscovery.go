package cases

import (
	"encoding/json"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientdiscovery "k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

// apiDiscovery: which groups and resources there are. The real server has more of them, and can delete collections:
// only what both have is compared.
func apiDiscovery() []Case {
	const group = "API discovery"
	return []Case{
		{Group: group, Name: "/api has the version v1", Run: func(w *World) {
			var got metav1.APIVersions
			w.readJSON("/api", "application/json", "application/json", &got)
			w.wantEqual("kind", got.TypeMeta, metav1.TypeMeta{Kind: "APIVersions"})
			w.wantEqual("versions", got.Versions, []string{"v1"})
		}},
		{Group: group, Name: "/apis has the group certificates.k8s.io", Run: func(w *World) {
			var got metav1.APIGroupList
			w.readJSON("/apis", "application/json", "application/json", &got)
			w.wantEqual("kind", got.TypeMeta, metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"})
			i := slices.IndexFunc(got.Groups, func(g metav1.APIGroup) bool { return g.Name == "certificates.k8s.io" })
			if i < 0 {
				w.Fatalf("not there: %+v", got.Groups)
			}
			w.wantEqual("group", got.Groups[i], certificatesGroup(metav1.TypeMeta{}))
		}},
		{Group: group, Name: "/apis/certificates.k8s.io is the group", Run: func(w *World) {
			var got metav1.APIGroup
			w.readJSON("/apis/certificates.k8s.io", "application/json", "application/json", &got)
			w.wantEqual("group", got, certificatesGroup(metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}))
		}},
		{Group: group, Name: "/api/v1 has the resources with their names, verbs and subresources", Run: func(w *World) {
			w.wantResources("/api/v1", metav1.TypeMeta{Kind: "APIResourceList"}, "v1", coreResources)
		}},
		{Group: group, Name: "/apis/certificates.k8s.io/v1 has clustertrustbundles", Run: func(w *World) {
			w.wantResources("/apis/certificates.k8s.io/v1", metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, "certificates.k8s.io/v1", certificatesResources)
		}},
		{Group: group, Name: "/apis/authentication.k8s.io/v1 has reviews, which can be created", Run: func(w *World) {
			w.wantResources("/apis/authentication.k8s.io/v1", metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, "authentication.k8s.io/v1", reviewResources)
		}},
		{Group: group, Name: "aggregated, in two documents", Run: aggregatedDiscovery},
		{Group: group, Name: "without \"as\", or of an unknown version, it is not aggregated", Run: func(w *World) {
			var got metav1.APIGroupList
			w.readJSON("/apis", strings.Replace(aggregated, "v=v2;", "v=v9;", 1)+",application/json", "application/json", &got)
			w.wantEqual("kind", got.Kind, "APIGroupList")
		}},
		{Group: group, Name: "a group or version that is not served: 404", Run: func(w *World) {
			for _, path := range []string{"/apis/none.example", "/apis/none.example/v1", "/api/v2"} {
				var code int
				w.send("GET", path, "").StatusCode(&code)
				w.wantEqual(path, code, 404)
			}
		}},
		{Group: group, Name: "what it says can be listed can", Run: listable},
		{Group: group, Name: "OpenAPI says that PATCH knows fieldValidation", Run: openAPI},
	}
}

// send sends a request as the administrator. headers are pairs of a name and a value, body is JSON.
func (w *World) send(verb, uri, body string, headers ...string) rest.Result {
	r := w.Client.Discovery().RESTClient().Verb(verb).RequestURI(uri).SetHeader("Content-Type", "application/json").WarningHandler(rest.NoWarnings{})
	for pair := range slices.Chunk(headers, 2) {
		r.SetHeader(pair[0], pair[1])
	}
	if body != "" {
		r.Body([]byte(body))
	}
	return r.Do(w.Ctx)
}

// readJSON gets a document of that content type.
func (w *World) readJSON(path, accept, contentType string, into any) {
	result, got := w.send("GET", path, "", "Accept", accept), ""
	raw, err := result.ContentType(&got).Raw()
	w.must(err)
	w.wantEqual("content type of "+path, got, contentType)
	w.must(json.Unmarshal(raw, into))
}

func certificatesGroup(kind metav1.TypeMeta) metav1.APIGroup {
	v1 := metav1.GroupVersionForDiscovery{GroupVersion: "certificates.k8s.io/v1", Version: "v1"}
	return metav1.APIGroup{TypeMeta: kind, Name: "certificates.k8s.io", Versions: []metav1.GroupVersionForDiscovery{v1}, PreferredVersion: v1}
}

var (
	allVerbs    = metav1.Verbs{"create", "delete", "get", "list", "patch", "update", "watch"}
	statusVerbs = metav1.Verbs{"get", "patch", "update"}

	coreResources = []metav1.APIResource{
		{Name: "configmaps", SingularName: "configmap", Namespaced: true, Kind: "ConfigMap", Verbs: allVerbs, ShortNames: []string{"cm"}},
		{Name: "events", SingularName: "event", Namespaced: true, Kind: "Event", Verbs: allVerbs, ShortNames: []string{"ev"}},
		{Name: "namespaces", SingularName: "namespace", Kind: "Namespace", Verbs: allVerbs, ShortNames: []string{"ns"}},
		{Name: "namespaces/status", Kind: "Namespace", Verbs: statusVerbs},
		{Name: "nodes", SingularName: "node", Kind: "Node", Verbs: allVerbs, ShortNames: []string{"no"}},
		{Name: "nodes/status", Kind: "Node", Verbs: statusVerbs},
		{Name: "pods", SingularName: "pod", Namespaced: true, Kind: "Pod", Verbs: allVerbs, ShortNames: []string{"po"}, Categories: []string{"all"}},
		{Name: "pods/status", Namespaced: true, Kind: "Pod", Verbs: statusVerbs},
		{Name: "secrets", SingularName: "secret", Namespaced: true, Kind: "Secret", Verbs: allVerbs},
		{Name: "serviceaccounts", SingularName: "serviceaccount", Namespaced: true, Kind: "ServiceAccount", Verbs: allVerbs, ShortNames: []string{"sa"}},
		{Name: "serviceaccounts/token", Namespaced: true, Group: "authentication.k8s.io", Version: "v1", Kind: "TokenRequest", Verbs: metav1.Verbs{"create"}},
	}
	reviewResources = []metav1.APIResource{
		{Name: "selfsubjectreviews", SingularName: "selfsubjectreview", Kind: "SelfSubjectReview", Verbs: metav1.Verbs{"create"}},
		{Name: "tokenreviews", SingularName: "tokenreview", Kind: "TokenReview", Verbs: metav1.Verbs{"create"}},
	}
	certificatesResources = []metav1.APIResource{
		{Name: "clustertrustbundles", SingularName: "clustertrustbundle", Kind: "ClusterTrustBundle", Verbs: allVerbs},
	}
)

func (w *World) wantResources(path string, kind metav1.TypeMeta, gv string, want []metav1.APIResource) {
	var got metav1.APIResourceList
	w.readJSON(path, "application/json", "application/json", &got)
	w.wantEqual("kind", got.TypeMeta, kind)
	w.wantEqual("groupVersion", got.GroupVersion, gv)
	w.wantEqual("resources", common(got.APIResources, want), want)
}

// common is what both servers have of a document: the wanted resources without what is only for the real server's own use.
func common(got, want []metav1.APIResource) (out []metav1.APIResource) {
	for _, r := range got {
		if slices.ContainsFunc(want, func(w metav1.APIResource) bool { return w.Name == r.Name }) {
			r.StorageVersionHash = ""
			r.Verbs = slices.DeleteFunc(slices.Clone(r.Verbs), func(verb string) bool { return verb == "deletecollection" })
			out = append(out, r)
		}
	}
	return out
}

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// aggregatedDiscovery reads the documents as kubectl does, which splits them into those of old.
func aggregatedDiscovery(w *World) {
	for path, c := range map[string]struct {
		gv   schema.GroupVersion
		want []metav1.APIResource
	}{"/api": {schema.GroupVersion{Version: "v1"}, coreResources}, "/apis": {schema.GroupVersion{Group: "certificates.k8s.io", Version: "v1"}, certificatesResources}} {
		var got apidiscoveryv2.APIGroupDiscoveryList
		w.readJSON(path, aggregated+",application/json", aggregated, &got)
		w.wantEqual("kind", got.TypeMeta, metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"})
		_, resources, stale := clientdiscovery.SplitGroupsAndResources(got)
		if resources[c.gv] == nil || len(stale) > 0 {
			w.Fatalf("%s: no %v in %+v, stale: %v", path, c.gv, resources, stale)
		}
		found := common(resources[c.gv].APIResources, c.want)
		for i := range found {
			if strings.Contains(found[i].Name, "/") {
				found[i].SingularName = "" // the splitting makes it
			}
		}
		w.wantEqual(path, found, c.want)
	}
}

func listable(w *World) {
	_, lists, err := w.Client.Discovery().ServerGroupsAndResources()
	w.must(err)
	listed := 0
	for _, list := range lists {
		root := "/apis/"
		if !strings.Contains(list.GroupVersion, "/") {
			root = "/api/"
		}
		for _, r := range list.APIResources {
			if !slices.Contains(r.Verbs, "list") {
				continue
			}
			listed++
			if err := w.send("GET", root+list.GroupVersion+"/"+r.Name, "").Error(); err != nil {
				w.Errorf("%s of %s: %v", r.Name, list.GroupVersion, err)
			}
		}
	}
	if listed < 8 {
		w.Errorf("only %d resources can be listed", listed)
	}
}

// openAPI looks where kubectl does before it leaves validation to the server.
func openAPI(w *World) {
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	raw, err := w.send("GET", "/openapi/v3", "").Raw()
	w.must(err)
	w.must(json.Unmarshal(raw, &index))
	for root, want := range map[string]struct {
		path string
		kind metav1.GroupVersionKind
	}{
		"api/v1":                      {"/api/v1/namespaces/{namespace}/pods/{name}", metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}},
		"apis/certificates.k8s.io/v1": {"/apis/certificates.k8s.io/v1/clustertrustbundles/{name}", metav1.GroupVersionKind{Group: "certificates.k8s.io", Version: "v1", Kind: "ClusterTrustBundle"}},
	} {
		var doc struct {
			OpenAPI string
			Paths   map[string]struct {
				Patch struct {
					Parameters []struct{ Name, In string }
					Kind       metav1.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
				}
			}
		}
		w.readJSON(index.Paths[root].ServerRelativeURL, "application/json", "application/json", &doc)
		w.wantEqual("version of OpenAPI", doc.OpenAPI, "3.0.0")
		patch := doc.Paths[want.path].Patch
		if !slices.Contains(patch.Parameters, struct{ Name, In string }{"fieldValidation", "query"}) {
			w.Errorf("no fieldValidation at %s: %+v", want.path, patch.Parameters)
		}
		w.wantEqual("kind", patch.Kind, want.kind)
	}
}

// warnings are the texts of the Warning headers.
func warningsOf(r rest.Result) string {
	var texts []string
	for _, w := range r.Warnings() {
		texts = append(texts, w.Text)
	}
	return strings.Join(texts, ", ")
}
