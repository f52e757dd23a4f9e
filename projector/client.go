package projector

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// Client lists and watches pods, and the objects that their volumes are made of. Both fields are required. They may be
// those of a clientset, CoreV1().RESTClient() and CertificatesV1().RESTClient(); a program that needs no clientset
// otherwise is far smaller with NewClient, on disk and in memory.
type Client struct {
	Core         rest.Interface // for the group version v1; also good for NewMint and NewAccountUID
	Certificates rest.Interface // for certificates.k8s.io/v1
}

// NewClient makes a Client for the server, the credentials and the limits that c says. It speaks protobuf, unless c
// says otherwise.
func NewClient(c *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	add := runtime.NewSchemeBuilder(corev1.AddToScheme, certificatesv1.AddToScheme, authenticationv1.AddToScheme)
	if err := add.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c = rest.CopyConfig(c)
	if c.ContentType == "" {
		c.ContentType, c.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
	}
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	transport, err := rest.HTTPClientFor(c) // one, so that both share its connections
	if err != nil {
		return nil, err
	}
	of := func(v schema.GroupVersion, path string) (rest.Interface, error) {
		c := rest.CopyConfig(c)
		c.GroupVersion, c.APIPath = &v, path
		return rest.RESTClientForConfigAndClient(c, transport)
	}
	core, err := of(corev1.SchemeGroupVersion, "/api")
	if err != nil {
		return nil, err
	}
	certificates, err := of(certificatesv1.SchemeGroupVersion, "/apis")
	return &Client{Core: core, Certificates: certificates}, err
}

// collection is one kind of objects in one namespace, to be listed and watched.
type collection struct {
	client    rest.Interface
	namespace string // "": all, or of none
	name      string
	one       runtime.Object // of the kind
	list      func() runtime.Object
}

func (c *Client) pods() collection {
	return collection{c.Core, metav1.NamespaceAll, "pods", &corev1.Pod{}, func() runtime.Object { return &corev1.PodList{} }}
}

func (c *Client) objects(ref ObjectRef) collection {
	switch ref.Kind {
	case KindSecret:
		return collection{c.Core, ref.Namespace, "secrets", &corev1.Secret{}, func() runtime.Object { return &corev1.SecretList{} }}
	case KindNode:
		return collection{c.Core, "", "nodes", &corev1.Node{}, func() runtime.Object { return &corev1.NodeList{} }}
	case KindClusterTrustBundle:
		return collection{c.Certificates, "", "clustertrustbundles", &certificatesv1.ClusterTrustBundle{},
			func() runtime.Object { return &certificatesv1.ClusterTrustBundleList{} }}
	}
	return collection{c.Core, ref.Namespace, "configmaps", &corev1.ConfigMap{}, func() runtime.Object { return &corev1.ConfigMapList{} }}
}

func (c collection) request(o metav1.ListOptions) *rest.Request {
	return c.client.Get().NamespaceIfScoped(c.namespace, c.namespace != "").Resource(c.name).VersionedParams(&o, metav1.ParameterCodec)
}

// listed lists what the options choose.
func (c collection) listed(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list := c.list()
	return list, c.request(o).Do(ctx).Into(list)
}

// watch watches what the options choose.
func (c collection) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return c.request(o).Watch(ctx)
}
