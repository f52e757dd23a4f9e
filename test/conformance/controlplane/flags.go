package controlplane

const loopback = "127.0.0.1"

// Names of the files that writeKeys makes and the flags name.
const (
	caFile        = "ca.crt"
	servingCert   = "apiserver.crt"
	servingKey    = "apiserver.key"
	signingKey    = "service-account.key"
	signingPublic = "service-account.pub"
	auditFile     = "audit.log"
)

// auditPolicy records who asked for what, never a body: tokens are in bodies.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted]
rules:
- level: Metadata
`

func (c *ControlPlane) etcdFlags() []string {
	client := "http://" + loopback + ":" + c.ports.etcdClient
	peer := "http://" + loopback + ":" + c.ports.etcdPeer
	return []string{
		"--name=conformance",
		"--data-dir=" + c.file("etcd"),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=conformance=" + peer,
		"--log-level=warn",
		"--unsafe-no-fsync", // the data is thrown away
	}
}

func (c *ControlPlane) apiserverFlags() []string {
	return []string{
		"--etcd-servers=http://" + loopback + ":" + c.ports.etcdClient,
		"--bind-address=" + loopback,
		"--advertise-address=" + loopback,
		"--endpoint-reconciler-type=none", // a loopback address is no valid endpoint
		"--secure-port=" + c.ports.apiserver,
		"--service-cluster-ip-range=10.96.0.0/16",
		"--client-ca-file=" + c.file(caFile),
		"--tls-cert-file=" + c.file(servingCert),
		"--tls-private-key-file=" + c.file(servingKey),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file=" + c.file(signingKey),
		"--service-account-key-file=" + c.file(signingPublic),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--anonymous-auth=true", // the default, which token consumers meet
		"--audit-policy-file=" + c.file("audit-policy.yaml"),
		"--audit-log-path=" + c.file(auditFile),
		"--audit-log-mode=blocking",  // a request is logged before it is handled
		"--audit-log-maxsize=100000", // MB: one file, so that a count counts all
	}
}

func (c *ControlPlane) controllerManagerFlags() []string {
	return []string{
		"--kubeconfig=" + c.file("controller-manager.kubeconfig"),
		"--controllers=serviceaccount-controller,serviceaccount-token-controller," +
			"root-ca-certificate-publisher-controller,namespace-controller",
		"--use-service-account-credentials", // each controller has its own rights, as everywhere
		"--service-account-private-key-file=" + c.file(signingKey),
		"--root-ca-file=" + c.file(caFile),
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=200",
		"--kube-api-burst=400",
	}
}
