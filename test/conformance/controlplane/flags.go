package controlplane

import (
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/token-projector/token-projector/test/cases"
)

const loopback = "127.0.0.1"

// Names of the files that writeKeys makes and the flags name.
const (
	caFile      = "ca.crt"
	servingCert = "apiserver.crt"
	servingKey  = "apiserver.key"
	auditFile   = "audit.log"
)

// signingKey and signingPublic are the files of the key of service account tokens for an algorithm.
func signingKey(alg jose.SignatureAlgorithm) string { return "service-account-" + string(alg) + ".key" }
func signingPublic(alg jose.SignatureAlgorithm) string {
	return "service-account-" + string(alg) + ".pub"
}

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

// apiserverFlags are those of a server on a port. Only the first one audits.
func (c *ControlPlane) apiserverFlags(port string, flags *cases.Flags) []string {
	all := append(c.serverFlags(port), c.tokenFlags(flags)...)
	if port == c.ports.apiserver {
		all = append(all,
			"--audit-policy-file="+c.file("audit-policy.yaml"),
			"--audit-log-path="+c.file(auditFile),
			"--audit-log-mode=blocking",  // a request is logged before it is handled
			"--audit-log-maxsize=100000") // MB: one file, so that a count counts all
	}
	return all
}

// tokenFlags are what an operator chooses about tokens.
func (c *ControlPlane) tokenFlags(flags *cases.Flags) []string {
	all := []string{"--service-account-signing-key-file=" + c.file(signingKey(flags.Algs[0]))}
	for _, issuer := range flags.Issuers {
		all = append(all, "--service-account-issuer="+issuer)
	}
	for _, alg := range flags.Algs {
		all = append(all, "--service-account-key-file="+c.file(signingPublic(alg)))
	}
	if len(flags.APIAudiences) > 0 {
		all = append(all, "--api-audiences="+strings.Join(flags.APIAudiences, ","))
	}
	if flags.MaxExpiration > 0 {
		all = append(all, "--service-account-max-token-expiration="+flags.MaxExpiration.String())
	}
	if flags.NoExtension {
		all = append(all, "--service-account-extend-token-expiration=false")
	}
	if flags.JWKSURI != "" {
		all = append(all, "--service-account-jwks-uri="+flags.JWKSURI)
	}
	return all
}

func (c *ControlPlane) serverFlags(port string) []string {
	return []string{
		"--etcd-servers=http://" + loopback + ":" + c.ports.etcdClient,
		"--bind-address=" + loopback,
		"--advertise-address=" + loopback,
		"--endpoint-reconciler-type=none", // a loopback address is no valid endpoint
		"--secure-port=" + port,
		"--service-cluster-ip-range=10.96.0.0/16",
		"--client-ca-file=" + c.file(caFile),
		"--tls-cert-file=" + c.file(servingCert),
		"--tls-private-key-file=" + c.file(servingKey),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--anonymous-auth=true", // the default, which token consumers meet
	}
}

// usualControllers are those that pods, and the daemon, cannot do without.
const usualControllers = "serviceaccount-controller,serviceaccount-token-controller," +
	"root-ca-certificate-publisher-controller,namespace-controller"

func (c *ControlPlane) controllerManagerFlags(controllers string) []string {
	return []string{
		"--kubeconfig=" + c.file("controller-manager.kubeconfig"),
		"--controllers=" + controllers,
		"--use-service-account-credentials", // each controller has its own rights, as everywhere
		"--service-account-private-key-file=" + c.file(signingKey(jose.RS256)),
		"--root-ca-file=" + c.file(caFile),
		"--leader-elect=false",
		"--secure-port=0",
		"--kube-api-qps=200",
		"--kube-api-burst=400",
	}
}
