package cases

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// watches: LIST and WATCH.
func watches() []Case {
	return append(slices.Concat(listOptionRefusals(), chunks(), streams(), transitions(), deletions(), clusterSelectors()), informersSurvive())
}

// clusterSelectors are those of objects without a namespace, which cannot be selected by one.
func clusterSelectors() []Case {
	const bundles = "/apis/certificates.k8s.io/v1/clustertrustbundles"
	var cases []Case
	for _, c := range []struct {
		name, path, field string
		code              int
	}{
		{"LIST of nodes by metadata.name: 200", "/api/v1/nodes", "metadata.name", 200},
		{"LIST of nodes by spec.unschedulable: 200", "/api/v1/nodes", "spec.unschedulable", 200},
		{"LIST of nodes by metadata.namespace: 400", "/api/v1/nodes", "metadata.namespace", 400},
		{"LIST of ClusterTrustBundles by spec.signerName: 200", bundles, "spec.signerName", 200},
		{"LIST of ClusterTrustBundles by metadata.namespace: 400", bundles, "metadata.namespace", 400},
		{"LIST of ClusterTrustBundles by spec.trustBundle: 400", bundles, "spec.trustBundle", 400},
		{"LIST of secrets by type: 200", "/api/v1/secrets", "type", 200},
		{"LIST of secrets by another field: 400", "/api/v1/secrets", "data", 400},
		{"LIST of accounts by metadata.name: 200", "/api/v1/serviceaccounts", "metadata.name", 200},
		{"LIST of events by involvedObject.uid: 200", "/api/v1/events", "involvedObject.uid", 200},
	} {
		cases = append(cases, Case{Group: watchGroup, Name: c.name, Run: func(w *World) {
			resp := w.open(c.path+"?fieldSelector="+c.field+"%3Dx", runtime.ContentTypeJSON)
			resp.Body.Close()
			w.wantEqual("code", resp.StatusCode, c.code)
		}})
	}
	return append(cases, Case{Group: watchGroup, Name: "WATCH of one node by its name sends nothing of another", Run: func(w *World) {
		mine := w.createNode("mine")
		other := w.createNode("other")
		nodes := w.Client.CoreV1().Nodes()
		in, err := nodes.Watch(w.Ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + mine.Name})
		w.must(err)
		defer in.Stop()
		for _, node := range []string{other.Name, mine.Name} {
			_, err := nodes.Patch(w.Ctx, node, types.MergePatchType, []byte(`{"metadata":{"labels":{"zone":"a"}}}`), metav1.PatchOptions{})
			w.must(err)
		}
		for _, want := range []watch.EventType{watch.Added, watch.Modified} {
			e := <-in.ResultChan()
			node, ok := e.Object.(*corev1.Node)
			if !ok || node.Name != mine.Name || e.Type != want {
				w.Fatalf("got %s %+v, want %s of %s", e.Type, e.Object, want, mine.Name)
			}
		}
		for _, node := range []string{other.Name, mine.Name} {
			w.must(nodes.Delete(w.Ctx, node, metav1.DeleteOptions{}))
		}
	}})
}
