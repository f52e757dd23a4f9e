package projector

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// seen is what a server has seen of a request.
type seen struct{ Path, Query, Accept, Body string }

var tokenPath = "/api/v1/namespaces/" + request.Namespace + "/serviceaccounts/" + request.ServiceAccount + "/token"

// objectServer has one pod, grants one token, and answers in the form that is asked for first.
func objectServer(t *testing.T, requests *[]seen) *httptest.Server {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, certificatesv1.AddToScheme, authenticationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	infos := serializer.NewCodecFactory(scheme).SupportedMediaTypes()
	answers := map[string]runtime.Object{
		"/api/v1/pods":                                     &corev1.PodList{Items: []corev1.Pod{*testPod(1, "", 0)}},
		"/api/v1/namespaces/n/configmaps":                  &corev1.ConfigMapList{},
		"/api/v1/namespaces/n/secrets":                     &corev1.SecretList{},
		"/api/v1/nodes":                                    &corev1.NodeList{},
		"/apis/certificates.k8s.io/v1/clustertrustbundles": &certificatesv1.ClusterTrustBundleList{},
		tokenPath: answered(),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*requests = append(*requests, seen{r.URL.Path, r.URL.RawQuery, r.Header.Get("Accept"), r.Header.Get("Content-Type")})
		spoken, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
		info, ok := runtime.SerializerInfoForMediaType(infos, spoken)
		o := answers[r.URL.Path]
		if !ok || o == nil {
			w.WriteHeader(http.StatusNotAcceptable)
			return
		}
		w.Header().Set("Content-Type", spoken)
		kinds, _, _ := scheme.ObjectKinds(o)
		o.GetObjectKind().SetGroupVersionKind(kinds[0])
		_ = info.Serializer.Encode(o, w)
	}))
	t.Cleanup(server.Close)
	return server
}

// TestClientSpeaksProtobuf: each kind is listed and watched where the API has it, tokens are requested, and all of it in
// protobuf, unless the config says otherwise.
func TestClientSpeaksProtobuf(t *testing.T) {
	const both = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	var requests []seen
	server := objectServer(t, &requests)
	for accept, encoding := range map[string]rest.ContentConfig{
		both:                    {},
		runtime.ContentTypeJSON: {ContentType: runtime.ContentTypeJSON, AcceptContentTypes: runtime.ContentTypeJSON},
	} {
		requests = nil
		c, err := NewClient(&rest.Config{Host: server.URL, QPS: -1, ContentConfig: encoding})
		if err != nil {
			t.Fatal(err)
		}
		pods, err := c.pods().listed(t.Context(), metav1.ListOptions{})
		if err != nil || len(pods.(*corev1.PodList).Items) != 1 || pods.(*corev1.PodList).Items[0].Name != "pod-1" {
			t.Fatalf("pods: %+v, %v", pods, err)
		}
		want := []seen{{"/api/v1/pods", "", accept, ""}}
		one := metav1.ListOptions{FieldSelector: "metadata.name=x"}
		for kind, path := range map[string]string{
			KindConfigMap: "/api/v1/namespaces/n/configmaps", KindSecret: "/api/v1/namespaces/n/secrets",
			KindNode: "/api/v1/nodes", KindClusterTrustBundle: "/apis/certificates.k8s.io/v1/clustertrustbundles",
		} {
			objects := c.objects(ObjectRef{Kind: kind, Namespace: "n", Name: "x"})
			if _, err := objects.listed(t.Context(), one); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			w, err := objects.watch(t.Context(), one)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			w.Stop()
			want = append(want, seen{path, "fieldSelector=metadata.name%3Dx", accept, ""}, seen{path, "fieldSelector=metadata.name%3Dx&watch=true", accept, ""})
		}
		if m, err := NewMint(c.Core, time.Minute)(t.Context(), request); err != nil || m.Token.empty() {
			t.Errorf("TokenRequest: %v", err)
		}
		spoken, _, _ := strings.Cut(accept, ",")
		want = append(want, seen{tokenPath, "", accept, spoken})
		if diff := cmp.Diff(want, requests); diff != "" {
			t.Error(diff)
		}
	}
}
