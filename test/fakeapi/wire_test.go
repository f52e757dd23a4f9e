package fakeapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const protobufType = "application/vnd.kubernetes.protobuf"

// response is an answer, read to its end.
type response struct {
	code   int
	header http.Header
	body   []byte
}

func httpClient(t testing.TB, s *Server) *http.Client {
	t.Helper()
	client, err := rest.HTTPClientFor(s.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// do sends one raw request as the administrator. headers are pairs of a name and a value.
func do(t testing.TB, s *Server, method, path string, body []byte, headers ...string) response {
	t.Helper()
	r, err := fetch(testContext(t), httpClient(t, s), method, s.URL()+path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fetch(ctx context.Context, client *http.Client, method, url string, body []byte, headers ...string) (response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, got}, err
}

func decodeJSON(t testing.TB, r response, code int, into any) {
	t.Helper()
	if r.code != code {
		t.Fatalf("got %d, want %d: %s", r.code, code, r.body)
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		t.Fatal(err)
	}
}

func mustProto(t testing.TB, obj runtime.Object) []byte {
	t.Helper()
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), protobufType)
	b, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, obj.GetObjectKind().GroupVersionKind().GroupVersion()), obj)
	if err != nil {
		gvks, _, _ := scheme.Scheme.ObjectKinds(obj)
		b, err = runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, gvks[0].GroupVersion()), obj)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const tokenPath = "/api/v1/namespaces/default/serviceaccounts/default/token"

// Bodies and answers in every media type, and the refusal of any other.
func TestMediaTypes(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	jsonBody := []byte(`{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1","spec":{"expirationSeconds":601}}`)
	bare := []byte(`{"spec":{"expirationSeconds":601}}`)
	yamlBody := []byte("kind: TokenRequest\napiVersion: authentication.k8s.io/v1\nspec: {expirationSeconds: 601}\n")
	protoBody := mustProto(t, podTokenRequest(mustCreate(t, s, newPod("web")), "", 601))
	for _, c := range []struct {
		name, contentType, accept string
		body                      []byte
		code                      int
		answerType                string
	}{
		{"json", "application/json", "application/json", jsonBody, 201, "application/json"},
		{"json without kind", "application/json; charset=utf-8", "", bare, 201, "application/json"},
		{"no content type", "", "*/*", jsonBody, 201, "application/json"},
		{"yaml", "application/yaml", "application/yaml", yamlBody, 201, "application/yaml"},
		{"stock client", protobufType, "application/vnd.kubernetes.protobuf,application/json", protoBody, 201, protobufType},
		{"preference", protobufType, "application/vnd.kubernetes.protobuf;q=0.5,application/json", protoBody, 201, "application/json"},
		{"table or plain", "application/json", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", jsonBody, 201, "application/json"},
		{"protobuf called json", "application/json", "", protoBody, 400, "application/json"},
		{"json called protobuf", protobufType, "", jsonBody, 400, "application/json"},
		{"another kind", "application/json", "", []byte(`{"kind":"Pod","apiVersion":"v1"}`), 400, "application/json"},
		{"unknown body", "text/plain", "", jsonBody, 415, "application/json"},
		{"unknown answer", "application/json", "image/png", jsonBody, 406, "application/json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			headers := []string{"Accept", c.accept}
			if c.contentType != "" {
				headers = append(headers, "Content-Type", c.contentType)
			}
			r := do(t, s, "POST", tokenPath, c.body, headers...)
			if r.code != c.code || r.header.Get("Content-Type") != c.answerType {
				t.Fatalf("got %d %s, want %d %s: %s", r.code, r.header.Get("Content-Type"), c.code, c.answerType, r.body)
			}
			obj, gvk, err := scheme.Codecs.UniversalDeserializer().Decode(r.body, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tr, ok := obj.(*authenticationv1.TokenRequest); c.code == 201 && (!ok || tr.Status.Token == "" || *tr.Spec.ExpirationSeconds != 601) {
				t.Errorf("got a %v, want the completed request", gvk)
			}
			if st, ok := obj.(*metav1.Status); c.code != 201 && (!ok || int(st.Code) != c.code) {
				t.Errorf("got a %v, want a Status of %d", gvk, c.code)
			}
		})
	}
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	body := func(n int) []byte { return append([]byte(`{"spec":{}}`), bytes.Repeat([]byte(" "), n-11)...) }
	for n, code := range map[int]int{3 << 20: 201, 3<<20 + 1: 413} {
		if r := do(t, s, "POST", tokenPath, body(n), "Content-Type", "application/json"); r.code != code {
			t.Errorf("%d bytes: got %d, want %d: %.200s", n, r.code, code, r.body)
		}
	}
}

// An old server refuses streaming lists.
func TestNoWatchList(t *testing.T) {
	t.Parallel()
	const streaming = "/api/v1/pods?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"
	for server, code := range map[*Server]int{start(t, Options{}): 200, start(t, Options{NoWatchList: true}): 422} {
		if r := do(t, server, "GET", streaming, nil); r.code != code {
			t.Errorf("got %d, want %d: %s", r.code, code, r.body)
		}
	}
}

// A LIST that goes on after its version was forgotten may be ended with what there is now.
func TestExpiredContinue(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	configMaps := clientset(t, s).CoreV1().ConfigMaps("default")
	for _, name := range []string{"a", "b", "c"} {
		mustCreate(t, s, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	}
	first, err := configMaps.List(testContext(t), metav1.ListOptions{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.ExpireResourceVersions()
	_, err = configMaps.List(testContext(t), metav1.ListOptions{Limit: 2, Continue: first.Continue})
	status, ok := err.(apierrors.APIStatus)
	if !ok || !apierrors.IsResourceExpired(err) || status.Status().Continue == "" {
		t.Fatalf("got %v, want 410 with another token", err)
	}
	rest, err := configMaps.List(testContext(t), metav1.ListOptions{Limit: 2, Continue: status.Status().Continue})
	if err != nil || len(rest.Items) != 1 || rest.Items[0].Name != "kube-root-ca.crt" {
		t.Errorf("the rest is %v, %v", rest, err)
	}
	if _, err := configMaps.List(testContext(t), metav1.ListOptions{ResourceVersion: first.ResourceVersion, ResourceVersionMatch: "Exact"}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a forgotten version: %v", err)
	}
}

// watchEvents reads the JSON events of a watch that ends by itself, as TYPE name@resourceVersion.
func watchEvents(t testing.TB, r response) []string {
	t.Helper()
	var out []string
	d := json.NewDecoder(bytes.NewReader(r.body))
	for d.More() {
		var e struct {
			Type   string
			Object struct {
				Kind, Message, Reason string
				Code                  int
				Metadata              metav1.ObjectMeta
			}
		}
		if err := d.Decode(&e); err != nil {
			t.Error(err)
			return out
		}
		o := e.Object
		line := e.Type + " " + o.Kind + " " + o.Metadata.Name + "@" + o.Metadata.ResourceVersion
		if o.Metadata.Annotations[metav1.InitialEventsAnnotationKey] == "true" {
			line += " end"
		}
		if o.Kind == "Status" {
			line = e.Type + " " + o.Reason + ": " + o.Message
		}
		out = append(out, line)
	}
	return out
}

// Bookmarks come in every interval.
func TestBookmarkInterval(t *testing.T) {
	t.Parallel()
	s := start(t, Options{BookmarkInterval: 50 * time.Millisecond})
	r := do(t, s, "GET", "/api/v1/pods?watch=true&allowWatchBookmarks=true&resourceVersion=99999&timeoutSeconds=1", nil)
	got := watchEvents(t, r)
	if len(got) < 5 {
		t.Fatalf("got %d bookmarks, want at least 5", len(got))
	}
	for _, e := range got {
		if e != "BOOKMARK Pod @99999" {
			t.Errorf("got %s", e)
		}
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	s := start(t, Options{Node: "n7"})
	path := t.TempDir() + "/kubeconfig"
	if err := s.WriteKubeconfig(path); err != nil {
		t.Fatal(err)
	}
	fromFile, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	wrong := s.RESTConfig()
	wrong.BearerToken = "wrong"
	foreign := start(t, Options{}).pki
	stranger := s.RESTConfig()
	stranger.BearerToken, stranger.CertData, stranger.KeyData = "", foreign.clientCert, foreign.clientKey
	for _, c := range []struct {
		name   string
		config *rest.Config
		user   string
	}{
		{"bearer token", s.RESTConfig(), "kubernetes-admin"}, {"kubeconfig", fromFile, "system:node:n7"},
		{"wrong token", wrong, ""}, {"certificate of another CA", stranger, ""},
	} {
		s.ForgetRequests()
		client, err := kubernetes.NewForConfig(c.config)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.CoreV1().Nodes().Get(testContext(t), "n7", metav1.GetOptions{})
		if c.user == "" && !apierrors.IsUnauthorized(err) || c.user != "" && err != nil {
			t.Errorf("%s: got %v", c.name, err)
		}
		if got := s.Requests(Match{}); len(got) != 1 || got[0].User != c.user {
			t.Errorf("%s: recorded %+v", c.name, got)
		}
	}
}

// The server's clock stamps what clients see of time, and may jump.
func TestServerClock(t *testing.T) {
	t.Parallel()
	clock := newClock(time.Date(2001, 1, 2, 3, 4, 5, 0, time.UTC))
	s := start(t, Options{Now: clock.now})
	for range 2 {
		r := do(t, s, "GET", "/api/v1/pods", nil)
		if got, want := r.header.Get("Date"), clock.now().Format(http.TimeFormat); got != want {
			t.Errorf("Date is %s, want %s", got, want)
		}
		if got := do(t, s, "GET", "/api/v1/no", nil).header.Get("Date"); got != r.header.Get("Date") {
			t.Errorf("Date of an error is %s", got)
		}
		pod := newPod("")
		pod.GenerateName = "pod-"
		if got := mustCreate(t, s, pod).CreationTimestamp; !got.Time.Equal(clock.now()) {
			t.Errorf("created at %v, want %v", got, clock.now())
		}
		clock.add(1000 * time.Hour)
	}
}

// http1 is a client configuration that knows no HTTP/2 and never reuses a connection.
func http1(s *Server) *rest.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	config := s.RESTConfig()
	config.TLSClientConfig = rest.TLSClientConfig{}
	config.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}
	return config
}

func TestHTTP1(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	client, err := kubernetes.NewForConfig(http1(s))
	if err != nil {
		t.Fatal(err)
	}
	_, events := podInformer(t, client, onNode)
	mustCreate(t, s, newPod("web"))
	expect(t, events, "add web")
	if got := s.Requests(Match{Verb: "watch"}); got[0].Proto != "HTTP/1.1" {
		t.Errorf("the watch came by %s", got[0].Proto)
	}
}

// A watcher that does not read is cut, and holds up nobody.
func TestSlowWatcherIsCut(t *testing.T) {
	t.Parallel()
	s := start(t, Options{History: 4})
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL()+"/api/v1/configmaps?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := httpClient(t, s).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	big := strings.Repeat("x", 1<<20)
	for i := range 40 { // far more than any buffer on the way
		mustCreate(t, s, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "big-" + itoa(uint64(i))}, Data: map[string]string{"a": big}})
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if n >= 40<<20 {
		t.Errorf("the watcher still got everything")
	}
}
