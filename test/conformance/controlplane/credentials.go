package controlplane

import (
	"fmt"
	"net"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Admin returns the credentials of a member of system:masters, whom nothing refuses but admission.
func (c *ControlPlane) Admin() *rest.Config { return rest.CopyConfig(c.admin) }

// Node returns the credentials of a kubelet: user system:node:NAME in group system:nodes.
func (c *ControlPlane) Node(name string) (*rest.Config, error) {
	return c.clientConfig("system:node:"+name, "system:nodes")
}

// Bearer returns a config that presents token and nothing else.
func (c *ControlPlane) Bearer(token string) *rest.Config {
	config := c.anonymous()
	config.BearerToken = token
	return config
}

// anonymous returns a config without credentials. The client-side rate limit is off: it would hide what is measured.
func (c *ControlPlane) anonymous() *rest.Config {
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(loopback, c.ports.apiserver),
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.CA()},
	}
}

func (c *ControlPlane) clientConfig(user string, groups ...string) (*rest.Config, error) {
	cert, key, err := c.authority.client(user, groups...)
	if err != nil {
		return nil, err
	}
	config := c.anonymous()
	config.CertData, config.KeyData = cert, key
	return config, nil
}

// WriteKubeconfig writes config to file, mode 0600, with its certificates inside.
func WriteKubeconfig(file string, config *rest.Config) error {
	const name = "conformance"
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	kubeconfig.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData,
		ClientKeyData:         config.KeyData,
		Token:                 config.BearerToken,
	}
	kubeconfig.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	kubeconfig.CurrentContext = name
	if err := clientcmd.WriteToFile(*kubeconfig, file); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
