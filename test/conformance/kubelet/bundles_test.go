package kubelet

import (
	"context"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/certificates"
	certificatesinformers "k8s.io/client-go/informers/certificates/v1"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kubernetes/pkg/kubelet/clustertrustbundle"
)

// newBundleManager is the kubelet's manager of trust bundles, over an informer that has synced.
func newBundleManager(ctx context.Context, w *world) (clustertrustbundle.Manager, error) {
	store := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	for _, b := range w.bundles {
		if err := store.Add(b); err != nil {
			return nil, err
		}
	}
	return clustertrustbundle.NewGAInformerManager(ctx, bundleFactory{store: store}, 16, time.Hour)
}

// The types below are all that the manager uses of an informer factory.
type (
	bundleFactory struct {
		informers.SharedInformerFactory
		store cache.Indexer
	}
	bundleGroup struct {
		certificates.Interface
		store cache.Indexer
	}
	bundleVersion struct {
		certificatesinformers.Interface
		store cache.Indexer
	}
	bundleInformer struct {
		certificatesinformers.TypedClusterTrustBundleInformer
		store cache.Indexer
	}
	syncedInformer struct{ cache.SharedIndexInformer }
)

func (f bundleFactory) Certificates() certificates.Interface { return bundleGroup{store: f.store} }

func (g bundleGroup) V1() certificatesinformers.Interface { return bundleVersion{store: g.store} }

func (v bundleVersion) ClusterTrustBundles() certificatesinformers.TypedClusterTrustBundleInformer {
	return bundleInformer{store: v.store}
}

func (bundleInformer) Informer() cache.SharedIndexInformer { return syncedInformer{} }

func (i bundleInformer) Lister() certificateslisters.ClusterTrustBundleLister {
	return certificateslisters.NewClusterTrustBundleLister(i.store)
}

func (syncedInformer) HasSynced() bool { return true }

func (syncedInformer) AddEventHandler(cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return nil, nil // a new manager sees no event
}
