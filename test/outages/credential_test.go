//go:build outages

package outages

import (
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// The files of the daemon's credential: of both kinds only one is there.
const (
	certificateFile = "tls.crt"
	keyFile         = "tls.key"
	tokenFile       = "credential"
)

// kubeconfig leads to the server by way of the link, with a credential in files.
func (n *node) kubeconfig(byToken bool) string {
	n.t.Helper()
	in := func(name string) string { return filepath.Join(n.dir, name) }
	auth := clientcmdapi.AuthInfo{ClientCertificate: in(certificateFile), ClientKey: in(keyFile)}
	if byToken {
		auth = clientcmdapi.AuthInfo{TokenFile: in(tokenFile)}
		n.identifyByToken("first")
	} else {
		n.identifyByCertificate("system:node:"+daemontest.Node, "system:nodes")
	}
	n.must(clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"fake": {Server: "https://" + n.link.address(), CertificateAuthorityData: n.api.CA()}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"daemon": &auth},
		Contexts:       map[string]*clientcmdapi.Context{"fake": {Cluster: "fake", AuthInfo: "daemon"}},
		CurrentContext: "fake",
	}, in("kubeconfig")))
	return in("kubeconfig")
}

// identify replaces the daemon's credential by that of another user, who may do everything.
func (n *node) identify(user string) {
	n.t.Helper()
	if _, err := os.Stat(filepath.Join(n.dir, tokenFile)); err == nil {
		n.identifyByToken(user)
		return
	}
	n.identifyByCertificate(user)
}

func (n *node) identifyByCertificate(user string, groups ...string) {
	n.t.Helper()
	config, err := n.api.UserConfig(user, groups...)
	n.must(err)
	n.replace(certificateFile, config.CertData)
	n.replace(keyFile, config.KeyData)
	n.user = user
}

func (n *node) identifyByToken(account string) {
	n.t.Helper()
	_, err := fakeapi.Create(n.api, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: account}})
	n.must(err)
	client, err := n.api.Clientset()
	n.must(err)
	answer, err := client.CoreV1().ServiceAccounts("kube-system").CreateToken(n.t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))},
	}, metav1.CreateOptions{})
	n.must(err)
	n.replace(tokenFile, []byte(answer.Status.Token))
	n.user = "system:serviceaccount:kube-system:" + account
}

func (n *node) replace(name string, content []byte) {
	n.t.Helper()
	path := filepath.Join(n.dir, name)
	n.must(os.WriteFile(path+".new", content, 0o600))
	n.must(os.Rename(path+".new", path))
}
