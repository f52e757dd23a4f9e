package fakeapi

import (
	"context"
	"fmt"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const meshSigner = "example.com/mesh"

// newBundle is a bundle of a signer, "" for none, with the label tier=name.
func newBundle(signer, name string) *certificatesv1.ClusterTrustBundle {
	b := &certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tier": name}}}
	b.Spec.SignerName, b.Spec.TrustBundle = signer, "PEM of "+name
	if signer != "" {
		b.Name = "example.com:mesh:" + name
	}
	return b
}

// clientsOf are a client that speaks protobuf, as stock ones do, and one that speaks JSON.
func clientsOf(t *testing.T, s *Server) map[string]kubernetes.Interface {
	t.Helper()
	config := s.RESTConfig()
	config.ContentType = "application/json"
	inJSON, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]kubernetes.Interface{"protobuf": clientset(t, s), "json": inJSON}
}

func TestClusterTrustBundleWrites(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	for media, client := range clientsOf(t, s) {
		t.Run(media, func(t *testing.T) {
			ctx, bundles := testContext(t), client.CertificatesV1().ClusterTrustBundles()
			b, err := bundles.Create(ctx, newBundle(meshSigner, "live"), metav1.CreateOptions{})
			if err != nil || b.Spec.SignerName != meshSigner || b.Spec.TrustBundle != "PEM of live" || b.UID == "" {
				t.Fatalf("created %+v, %v", b, err)
			}
			b.Spec.TrustBundle = "PEM of both"
			if b, err = bundles.Update(ctx, b, metav1.UpdateOptions{}); err != nil || b.Spec.TrustBundle != "PEM of both" {
				t.Fatalf("updated to %+v, %v", b, err)
			}
			for kind, patch := range map[types.PatchType]string{
				types.StrategicMergePatchType: `{"spec":{"trustBundle":"PEM"}}`, types.MergePatchType: `{"metadata":{"labels":{"tier":"new"}}}`,
				types.JSONPatchType: `[{"op":"add","path":"/metadata/labels/more","value":"yes"}]`,
			} {
				if _, err := bundles.Patch(ctx, b.Name, kind, []byte(patch), metav1.PatchOptions{}); err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			}
			got, err := bundles.Get(ctx, b.Name, metav1.GetOptions{})
			if err != nil || got.Spec.TrustBundle != "PEM" || got.Labels["tier"] != "new" || got.Labels["more"] != "yes" {
				t.Errorf("after patches it is %+v, %v", got, err)
			}
			if err := bundles.Delete(ctx, b.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
			if _, err := bundles.Get(ctx, b.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("after its deletion: %v", err)
			}
		})
	}
}

// The name of a bundle follows from its signer.
func TestClusterTrustBundleNames(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	for _, c := range []struct {
		signer, name string
		good         bool
	}{
		{"", "plain", true}, {"", "example.com:mesh:live", false},
		{meshSigner, "example.com:mesh:live", true}, {meshSigner, "live", false}, {meshSigner, "example.com:mesh:", false},
		{meshSigner, "example.com:mesh:a:b", false}, {meshSigner, "example.com/mesh:live", false},
	} {
		b := newBundle("", c.name)
		b.Spec.SignerName = c.signer
		if _, err := Create(s, b); c.good && err != nil || !c.good && !apierrors.IsInvalid(err) {
			t.Errorf("%q of signer %q: %v", c.name, c.signer, err)
		}
	}
}

// Everything is found under its own group alone.
func TestGroups(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	for path, code := range map[string]int{
		"/apis/certificates.k8s.io/v1/clustertrustbundles": 200, "/api/v1/clustertrustbundles": 404,
		"/api/v1/pods": 200, "/apis/certificates.k8s.io/v1/pods": 404, "/apis/certificates.k8s.io/v1beta1/clustertrustbundles": 404,
		"/apis/certificates.k8s.io/v1/namespaces/default/clustertrustbundles": 404,
	} {
		if r := do(t, s, "GET", path, nil); r.code != code {
			t.Errorf("%s: got %d, want %d", path, r.code, code)
		}
	}
	if got := s.Requests(Match{Resource: "clustertrustbundles", Func: func(r *Request) bool { return r.Group == "certificates.k8s.io" && r.Code == 200 }}); len(got) != 1 {
		t.Errorf("the journal has %d good requests for bundles, want 1", len(got))
	}
}

// followed runs a stock informer and sends what it is told, as "add NAME".
func followed(t *testing.T, client kubernetes.Interface, selector func(*metav1.ListOptions), pick func(informers.SharedInformerFactory) cache.SharedIndexInformer) <-chan string {
	t.Helper()
	f := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTweakListOptions(selector))
	informer, events := pick(f), make(chan string, 100)
	send := func(what string, obj any) { events <- what + " " + obj.(Object).GetName() }
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { send("add", o) },
		UpdateFunc: func(_, o any) { send("update", o) },
		DeleteFunc: func(o any) { send("delete", o) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	f.Start(ctx.Done())
	t.Cleanup(func() { cancel(); f.Shutdown() })
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		t.Fatal("the informer did not sync")
	}
	return events
}

func expectNames(t *testing.T, events <-chan string, want ...string) {
	t.Helper()
	ctx := testContext(t)
	for _, w := range want {
		select {
		case got := <-events:
			if got != w {
				t.Fatalf("got event %q, want %q", got, w)
			}
		case <-ctx.Done():
			t.Fatalf("no event, want %q", w)
		}
	}
}

func byField(selector string) func(*metav1.ListOptions) {
	return func(o *metav1.ListOptions) { o.FieldSelector = selector }
}

func TestClusterTrustBundleInformers(t *testing.T) {
	t.Parallel()
	for _, opts := range []Options{{}, {NoWatchList: true}} {
		s := start(t, opts)
		for media, client := range clientsOf(t, s) {
			t.Run(fmt.Sprintf("%s, no watch-list %v", media, opts.NoWatchList), func(t *testing.T) {
				s.ForgetRequests()
				bundles := func(f informers.SharedInformerFactory) cache.SharedIndexInformer {
					return f.Certificates().V1().ClusterTrustBundles().Informer()
				}
				other := mustCreate(t, s, newBundle("", "other"))
				live := mustCreate(t, s, newBundle(meshSigner, "live"))
				byName := followed(t, client, byField("metadata.name="+live.Name), bundles)
				bySigner := followed(t, client, func(o *metav1.ListOptions) {
					o.FieldSelector, o.LabelSelector = "spec.signerName="+meshSigner, "tier in (live,old)"
				}, bundles)
				expectNames(t, byName, "add "+live.Name)
				expectNames(t, bySigner, "add "+live.Name)
				old, dead := mustCreate(t, s, newBundle(meshSigner, "old")), mustCreate(t, s, newBundle(meshSigner, "dead"))
				live.Labels["tier"] = "none"
				live = mustUpdate(t, s, live)
				expectNames(t, bySigner, "add "+old.Name, "delete "+live.Name)
				expectNames(t, byName, "update "+live.Name)
				for _, b := range []Object{other, live, old, dead} {
					if err := s.Delete(b, metav1.DeleteOptions{}); err != nil {
						t.Fatal(err)
					}
				}
				expectNames(t, bySigner, "delete "+old.Name)
				expectNames(t, byName, "delete "+live.Name)
				if got, want := len(s.Requests(Match{Verb: "list"})), map[bool]int{true: 2}[opts.NoWatchList]; got != want {
					t.Errorf("the informers sent %d LISTs, want %d", got, want)
				}
			})
		}
	}
}
