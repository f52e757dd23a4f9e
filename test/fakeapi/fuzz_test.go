package fakeapi

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// FuzzDecode reads any body as every kind that is served. What is read can be written and read again, and is the same when
// that is done once more: the first time may round, to whole seconds for one.
func FuzzDecode(f *testing.F) {
	kinds := []schema.GroupVersionKind{tokenRequestKind}
	for _, r := range newResources() {
		kinds = append(kinds, r.kind)
	}
	pod := newPod("web")
	pod.SetGroupVersionKind(kinds[1])
	for _, m := range medias {
		body, err := m.encode(pod)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.MediaType, body, byte(1))
	}
	f.Add("application/json; charset=utf-8", []byte(`{"spec":{"audiences":["a"],"expirationSeconds":601,"boundObjectRef":{"kind":"Pod"}},"odd":1}`), byte(0))
	f.Add("application/yaml", []byte("metadata: {name: a, creationTimestamp: 2026-11-24T10:00:00.5Z}\ndata: {a: b, a: c}\n"), byte(2))
	f.Fuzz(func(t *testing.T, contentType string, body []byte, which byte) {
		kind := kinds[int(which)%len(kinds)]
		read := func(contentType string, body []byte) (runtime.Object, error) {
			obj, err := scheme.Scheme.New(kind)
			if err != nil {
				t.Fatal(err)
			}
			err = decode(contentType, body, kind, obj)
			obj.GetObjectKind().SetGroupVersionKind(kind)
			return obj, err
		}
		obj, err := read(contentType, body)
		if err != nil && !runtime.IsStrictDecodingError(err) {
			return
		}
		for _, m := range medias {
			var seen [2]runtime.Object
			for i := range seen {
				body, err := m.encode(obj)
				if err != nil && strings.Contains(err.Error(), "control characters are not allowed") && m.MediaType == "application/yaml" {
					break // sigs.k8s.io/yaml, which the real server writes with, too, has no YAML for these
				}
				if err != nil {
					t.Fatal(err)
				}
				if obj, err = read(m.MediaType, body); err != nil {
					t.Fatalf("%s that we wrote: %v\n%q", m.MediaType, err, body)
				}
				seen[i] = obj
			}
			if !apiequality.Semantic.DeepEqual(seen[0], seen[1]) {
				t.Fatalf("%s changes when it is written and read again:\n%s", m.MediaType, cmp.Diff(seen[0], seen[1]))
			}
		}
	})
}

// FuzzTokenRequest sends any body for any account: the server never fails, and a token that it grants is good for the
// lifetime that the body asks for.
func FuzzTokenRequest(f *testing.F) {
	s := start(f, Options{Forgetful: true})
	mustCreate(f, s, newPod("web"))
	f.Add("application/json", []byte(`{"spec":{"expirationSeconds":601}}`), "default", "default", "")
	f.Add("application/json", []byte(`{"spec":{"expirationSeconds":3607,"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"web"}},"odd":1}`), "default", "default", "fieldValidation=Ignore")
	f.Add("application/yaml", []byte("spec: {expirationSeconds: 4294967296, audiences: [vault, \"\"]}\n"), "kube-system", "default", "")
	f.Add(protobufType, mustProto(f, podTokenRequest(newPod("web"), "vault", 3607)), "default", "default", "")
	f.Fuzz(func(t *testing.T, contentType string, body []byte, namespace, account, query string) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.URL = &url.URL{Path: "/api/v1/namespaces/" + namespace + "/serviceaccounts/" + account + "/token", RawQuery: query}
		r.Header = http.Header{"Content-Type": {contentType}, "Authorization": {"Bearer " + s.RESTConfig().BearerToken}}
		w := httptest.NewRecorder()
		s.handle(w, r)
		if w.Code >= 500 {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		if w.Code == http.StatusCreated {
			checkGranted(t, s, contentType, body, w.Body.Bytes())
		}
	})
}

// checkGranted compares the token with what was asked for. One for the API that is bound to a pod may live longer, and
// says until when it is meant to.
func checkGranted(t *testing.T, s *Server, contentType string, body, answer []byte) {
	t.Helper()
	var asked, got authenticationv1.TokenRequest
	if err := decode(contentType, body, tokenRequestKind, &asked); err != nil && !runtime.IsStrictDecodingError(err) {
		t.Fatalf("a token for a body that does not decode: %v", err)
	}
	if err := decode(runtime.ContentTypeJSON, answer, tokenRequestKind, &got); err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(got.Status.Token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal("the token does not parse")
	}
	var c jwt.Claims
	var private struct {
		Kubernetes struct {
			WarnAfter *jwt.NumericDate `json:"warnafter"`
		} `json:"kubernetes.io"`
	}
	if err := parsed.Claims(s.Keys(), &c, &private); err != nil {
		t.Fatalf("the token does not verify: %v", err)
	}
	if private.Kubernetes.WarnAfter != nil {
		c.Expiry = private.Kubernetes.WarnAfter
	}
	want := time.Hour
	if asked.Spec.ExpirationSeconds != nil {
		want = seconds(*asked.Spec.ExpirationSeconds)
	}
	if lives := c.Expiry.Time().Sub(c.IssuedAt.Time()); lives != want || lives < 10*time.Minute {
		t.Fatalf("asked for %v, got %v", want, lives)
	}
}
