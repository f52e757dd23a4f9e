package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"
)

// Who the daemon is to the API server: values of --identity.
const (
	// impersonateNode is the node, by the credential of the daemon's own pod: the API server lets the account impersonate the
	// one node that its token is bound to (constrained impersonation, on by default since Kubernetes 1.36). The Node authorizer
	// and NodeRestriction then hold the daemon to what is on the node.
	impersonateNode = "impersonate-node"
	// asKubeconfig is whoever the kubeconfig names: where nobody projects a token for the daemon, the node itself.
	asKubeconfig = "kubeconfig"
	// serviceAccount is the account of the daemon's own pod, and has what RBAC grants it: for servers without constrained
	// impersonation. See serviceAccountWarning for what that means.
	serviceAccount = "service-account"
)

var identities = []string{impersonateNode, asKubeconfig, serviceAccount}

// serviceAccountWarning is said once at every start: what deploy/overlays/service-account cannot do.
const serviceAccountWarning = "with --identity service-account nothing ties this daemon's credential to its node. The API server cannot check that " +
	"the pod which a token is bound to is on this node: whoever holds the credential may request a token of any service account, for any pod of the " +
	"cluster (it may list them all, with their UIDs), for every audience that RBAC grants it; and may read the pods, nodes and service accounts of the " +
	"whole cluster, and the configMaps and secrets that RBAC grants it, whether a pod of this node uses them or not. The ValidatingAdmissionPolicy of " +
	"deploy/overlays/service-account, if it is there, stops tokens that are not bound to a pod, or for any other audience, and requests with a token " +
	"that is not bound to a pod on a node; it stops nothing of the above. On Kubernetes 1.36 or newer use --identity impersonate-node"

// validateIdentity completes and checks --identity against --kubeconfig.
func (o *options) validateIdentity() error {
	if o.identity == "" {
		o.identity = impersonateNode
		if o.kubeconfig != "" {
			o.identity = asKubeconfig
		}
	}
	switch {
	case !slices.Contains(identities, o.identity):
		return fmt.Errorf("--identity %q: must be %s", o.identity, strings.Join(identities, ", "))
	case o.identity == asKubeconfig && o.kubeconfig == "":
		return errors.New("--identity kubeconfig: give the file with --kubeconfig, or in a pod use impersonate-node or service-account")
	case o.identity != asKubeconfig && o.kubeconfig != "":
		return fmt.Errorf("--identity %s is by the credential of the daemon's own pod, and --kubeconfig names another one: leave one of the two flags out", o.identity)
	}
	return nil
}

// restConfig is the daemon's credential. Only the user name of the node is set when it is impersonated; the server adds
// the groups, and refuses more.
func restConfig(o *options) (*rest.Config, error) {
	if o.identity == asKubeconfig {
		c, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("--kubeconfig %s: %w", o.kubeconfig, err)
		}
		rereadToken(c)
		return c, nil
	}
	c, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("--identity %s needs the credential of a pod; elsewhere give --kubeconfig: %w", o.identity, err)
	}
	if o.identity == impersonateNode {
		c.Impersonate = rest.ImpersonationConfig{UserName: nodeUser(o.nodeName)}
	}
	rereadToken(c)
	return c, nil
}

func nodeUser(node string) string { return "system:node:" + node }

// rereadToken has a token file read again after each 401. Otherwise client-go
// would send what it has read for up to 50 s, whatever the server says to it.
func rereadToken(c *rest.Config) {
	if c.BearerTokenFile == "" {
		return
	}
	source := transport.NewCachedFileTokenSource(c.BearerTokenFile)
	c.BearerToken, c.BearerTokenFile = "", ""
	c.Wrap(transport.ResettableTokenSourceWrapTransport(source))
}

// warnOfIdentity says what the identity does not protect from.
func (o *options) warnOfIdentity(log *zap.Logger) {
	if o.identity == serviceAccount {
		log.Warn(serviceAccountWarning)
	}
}

// otherWays are those that need no constrained impersonation.
const otherWays = "or use --identity kubeconfig with a credential of the node, or deploy/overlays/service-account (--identity service-account)"

// advice says what an operator can do about a list or watch of the pods that was refused; "" if it was not. A refusal may
// be over in a moment, when RBAC has come to the server: nobody should end because of it.
//
// Which refusal it is can be told from what the server names: the old kind of impersonation is of "users", and is the only
// kind that a server without constrained impersonation knows. The verbs of the other kinds are those of RBAC rules.
func (o *options) advice(err error) string {
	if !apierrors.IsForbidden(err) {
		return ""
	}
	switch o.identity {
	case asKubeconfig:
		return "the user of --kubeconfig may not watch the pods of this node: it must be " + nodeUser(o.nodeName) + " in the group system:nodes, with the Node authorizer on"
	case serviceAccount:
		return "the pod's service account may not watch pods: apply the RBAC of deploy/overlays/service-account"
	}
	return o.impersonationAdvice(err)
}

func (o *options) impersonationAdvice(err error) string {
	kind, name := refused(err)
	says := func(text string) bool { return strings.Contains(err.Error(), text) }
	switch {
	case kind == "users" && name == nodeUser(o.nodeName):
		return "the API server does not know constrained impersonation: upgrade it to Kubernetes 1.36 or newer, or turn its feature gate " +
			"ConstrainedImpersonation on; " + otherWays
	case says("impersonate-on:arbitrary-node:") || says("impersonate:arbitrary-node"):
		return "this daemon's token is not bound to a pod on node " + o.nodeName + ", so that it may not act as that node: --node-name or $NODE_NAME must be " +
			"the node that the daemon's pod is on (spec.nodeName), and the token the one that the kubelet projects; " + otherWays
	case says("impersonate-on:associated-node:") || says("impersonate:associated-node"):
		return "the pod's service account may not act as its node: apply the RBAC of deploy (impersonate:associated-node and " +
			"impersonate-on:associated-node:*), which takes effect without a restart; " + otherWays
	case says(nodeUser(o.nodeName)):
		return "the API server lets this daemon act as its node, but not the node watch its pods: turn the Node authorizer on (--authorization-mode=Node,RBAC); " + otherWays
	}
	return "the API server may be older than Kubernetes 1.36 or have its feature gate ConstrainedImpersonation off, or the RBAC of deploy may be missing; " + otherWays
}

// refused is the kind and name of what the API server says it has refused.
func refused(err error) (kind, name string) {
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok && status.ErrStatus.Details != nil {
		return status.ErrStatus.Details.Kind, status.ErrStatus.Details.Name
	}
	return "", ""
}
