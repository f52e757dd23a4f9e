package fakeapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// pki is the server's own CA and what it issued.
type pki struct {
	caPEM       []byte
	pool        *x509.CertPool
	server      tls.Certificate
	clientCert  []byte   // PEM, of system:node:<node>
	clientKey   []byte   // PEM
	bearerToken string   // of the administrator
	verified    sync.Map // DER certificates of clients

	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
}

// newPKI makes certificates that are valid by the local clock, whatever Options.Now says: a client checks them by it too.
func newPKI(addr net.Addr, node string) (*pki, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the CA key: %w", err)
	}
	ca, err := certutil.NewSelfSignedCACert(certutil.Config{CommonName: "kubernetes-ca", NotBefore: lifeBegins()}, caKey)
	if err != nil {
		return nil, err
	}
	p := &pki{ca: ca, caKey: caKey, caPEM: encodeCert(ca.Raw), pool: x509.NewCertPool(), bearerToken: rand.Text()}
	p.pool.AddCert(ca)
	serverCert, serverKey, err := p.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, addr.(*net.TCPAddr).IP},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, err
	}
	if p.server, err = tls.X509KeyPair(serverCert, serverKey); err != nil {
		return nil, fmt.Errorf("load the server certificate: %w", err)
	}
	p.clientCert, p.clientKey, err = p.client("system:node:"+node, "system:nodes")
	return p, err
}

// client issues the certificate of a user and its groups.
func (p *pki) client(user string, groups ...string) (cert, key []byte, err error) {
	return p.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// lifeBegins lies back, for clocks that are being set.
func lifeBegins() time.Time { return time.Now().Add(-24 * time.Hour) }

func (p *pki) issue(template *x509.Certificate) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.NotBefore, template.NotAfter = lifeBegins(), time.Now().AddDate(10, 0, 0)
	der, err := x509.CreateCertificate(rand.Reader, template, p.ca, &private.PublicKey, p.caKey) // with a random serial number
	if err != nil {
		return nil, nil, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	key, err = keyutil.MarshalPrivateKeyToPEM(private)
	return encodeCert(der), key, err
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certutil.CertificateBlockType, Bytes: der})
}

// authenticate says who sent a request; the zero value is somebody who is not who they say.
func (s *Server) authenticate(r *http.Request) authenticationv1.UserInfo {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if subtle.ConstantTimeCompare([]byte(token), []byte(s.pki.bearerToken)) == 1 {
			return authenticationv1.UserInfo{Username: "kubernetes-admin", Groups: []string{"system:masters", "system:authenticated"}}
		}
		user, _, err := s.authenticateToken(token, s.apiAudiences())
		if err != nil {
			return authenticationv1.UserInfo{} // nobody is told why
		}
		return user
	}
	if len(r.TLS.PeerCertificates) == 0 {
		return authenticationv1.UserInfo{Username: anonymousUser, Groups: []string{"system:unauthenticated"}}
	}
	cert := r.TLS.PeerCertificates[0]
	if !s.pki.verify(cert) {
		return authenticationv1.UserInfo{}
	}
	return authenticationv1.UserInfo{Username: cert.Subject.CommonName, Groups: append(cert.Subject.Organization, "system:authenticated")}
}

// verify checks the certificate of a client, once for all requests that come with it: that takes as long as to serve one.
func (p *pki) verify(cert *x509.Certificate) bool {
	if _, known := p.verified.Load(string(cert.Raw)); known {
		return true
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: p.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err == nil {
		p.verified.Store(string(cert.Raw), nil)
	}
	return err == nil
}

// RESTConfig is an administrator's client configuration, by bearer token, without a client-side rate limit.
// The caller may change it.
func (s *Server) RESTConfig() *rest.Config {
	return &rest.Config{
		Host:            s.URL(),
		BearerToken:     s.pki.bearerToken,
		TLSClientConfig: rest.TLSClientConfig{CAData: s.pki.caPEM},
		QPS:             -1,
	}
}

// UserConfig is the client configuration of any user, by client certificate, without a client-side rate limit.
func (s *Server) UserConfig(user string, groups ...string) (*rest.Config, error) {
	cert, key, err := s.pki.client(user, groups...)
	if err != nil {
		return nil, err
	}
	config := s.RESTConfig()
	config.BearerToken, config.CertData, config.KeyData = "", cert, key
	return config, nil
}

// Clientset is a stock client with RESTConfig.
func (s *Server) Clientset() (kubernetes.Interface, error) {
	return kubernetes.NewForConfig(s.RESTConfig())
}

// CA is the certificate, in PEM, that signs the server's, and that every kube-root-ca.crt holds.
func (s *Server) CA() []byte { return append([]byte(nil), s.pki.caPEM...) }

// WriteKubeconfig writes, atomically and with mode 0600, a kubeconfig with the client certificate of the node in Options.
func (s *Server) WriteKubeconfig(path string) error {
	return s.writeKubeconfig(path, "system:node:"+s.opts.Node, clientcmdapi.AuthInfo{ClientCertificateData: s.pki.clientCert, ClientKeyData: s.pki.clientKey})
}

// WriteAdminKubeconfig is WriteKubeconfig with the administrator's token, for a person's kubectl.
func (s *Server) WriteAdminKubeconfig(path string) error {
	return s.writeKubeconfig(path, "kubernetes-admin", clientcmdapi.AuthInfo{Token: s.pki.bearerToken})
}

func (s *Server) writeKubeconfig(path, user string, auth clientcmdapi.AuthInfo) error {
	const name = "fake"
	config := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: s.URL(), CertificateAuthorityData: s.pki.caPEM}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: &auth},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: user}},
		CurrentContext: name,
	}
	next := path + ".new"
	defer os.Remove(next) // nothing left to remove after the rename
	err := clientcmd.WriteToFile(config, next)
	if err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return fmt.Errorf("write the kubeconfig: %w", err)
	}
	return nil
}
