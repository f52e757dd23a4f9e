package controlplane

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/test/cases"
)

// startTimeout bounds one attempt to start, the build not included.
const startTimeout = 2 * time.Minute

// ControlPlane is a running control plane. It is safe for use by many goroutines, Stop apart.
type ControlPlane struct {
	binary    string
	dir       string // everything of ours on disk
	authority *authority
	admin     *rest.Config
	ports     ports
	keys      map[jose.SignatureAlgorithm]crypto.Signer // of service account tokens

	mu        sync.Mutex // guards what follows
	processes []*process // in the order of their start
	servers   map[*cases.Flags]*Server
}

// Start builds the three programs (seconds when the build cache holds them, minutes when not), starts them and waits
// until the API server is ready and the controllers have served the namespace "default". ctx bounds the start, not the
// life: that ends with Stop.
func Start(ctx context.Context) (*ControlPlane, error) {
	binary, err := Build(ctx)
	if err != nil {
		return nil, err
	}
	const attempts = 3
	for attempt := 1; ; attempt++ {
		c, err := start(ctx, binary)
		// A port that was free a moment ago may be another's now.
		if err == nil || attempt == attempts || !strings.Contains(err.Error(), "address already in use") {
			return c, err
		}
	}
}

func start(ctx context.Context, binary string) (*ControlPlane, error) {
	c := &ControlPlane{binary: binary}
	if err := c.prepare(); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.launch(ctx, binary); err != nil {
		err = fmt.Errorf("start the control plane: %w\n%s", err, c.Logs())
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// prepare makes everything the programs read.
func (c *ControlPlane) prepare() error {
	var err error
	if c.dir, err = os.MkdirTemp("", "controlplane-"); err != nil {
		return fmt.Errorf("make the control plane's directory: %w", err)
	}
	if c.ports, err = freePorts(); err != nil {
		return err
	}
	if c.authority, err = newAuthority(); err != nil {
		return err
	}
	if c.admin, err = c.clientConfig("conformance-admin", "system:masters"); err != nil {
		return err
	}
	if err := c.writeKeys(); err != nil {
		return err
	}
	if err := os.WriteFile(c.file("audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return fmt.Errorf("write the audit policy: %w", err)
	}
	controllers, err := c.clientConfig("system:kube-controller-manager")
	if err != nil {
		return err
	}
	return WriteKubeconfig(c.file("controller-manager.kubeconfig"), controllers)
}

func (c *ControlPlane) launch(ctx context.Context, binary string) error {
	if err := c.run(binary, "etcd", c.etcdFlags()); err != nil {
		return err
	}
	if err := c.run(binary, "kube-apiserver", c.apiserverFlags(c.ports.apiserver, cases.Usual)); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		return fmt.Errorf("make the administrator's client: %w", err)
	}
	if err := c.await(ctx, "the API server", func(ctx context.Context) (bool, error) { return ready(ctx, client), nil }); err != nil {
		return err
	}
	if err := c.run(binary, "kube-controller-manager", c.controllerManagerFlags(usualControllers)); err != nil {
		return err
	}
	return c.await(ctx, "the controllers", func(ctx context.Context) (bool, error) {
		return NamespaceReady(ctx, client, metav1.NamespaceDefault)
	})
}

func (c *ControlPlane) run(binary, name string, flags []string) error {
	p, err := startProcess(name, binary, c.file(fmt.Sprintf("%s-%d.log", name, len(c.processes))), append([]string{name}, flags...)...)
	if err != nil {
		return err
	}
	c.processes = append(c.processes, p)
	return nil
}

// await polls condition until it holds, ctx ends or a process has died.
// StartController starts another kube-controller-manager with one controller, such as "daemonset-controller", and returns
// what ends it.
func (c *ControlPlane) StartController(name string) (stop func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.run(c.binary, "kube-controller-manager", c.controllerManagerFlags(name)); err != nil {
		return nil, err
	}
	p := c.processes[len(c.processes)-1]
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.processes = slices.DeleteFunc(c.processes, func(of *process) bool { return of == p })
		p.kill()
	}, nil
}

func (c *ControlPlane) await(ctx context.Context, what string, condition wait.ConditionWithContextFunc) error {
	err := wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		for _, p := range c.processes {
			if p.exited() {
				return false, fmt.Errorf("%s ended by itself", p.name)
			}
		}
		return condition(ctx)
	})
	if err != nil {
		return fmt.Errorf("wait for %s: %w", what, err)
	}
	return nil
}

func ready(ctx context.Context, client kubernetes.Interface) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	return err == nil
}

// NamespaceReady reports whether a pod can be created in the namespace: the controllers have made its service account
// "default" and its ConfigMap kube-root-ca.crt.
func NamespaceReady(ctx context.Context, client kubernetes.Interface, namespace string) (bool, error) {
	_, accountErr := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
	_, bundleErr := client.CoreV1().ConfigMaps(namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
	for _, err := range []error{accountErr, bundleErr} {
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read what namespace %s needs: %w", namespace, err)
		}
	}
	return true, nil
}

// Stop kills the processes, waits for each, and removes their files. A second call does nothing.
func (c *ControlPlane) Stop() error {
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].kill()
	}
	c.processes = nil
	if c.dir == "" {
		return nil
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return fmt.Errorf("remove the control plane's directory: %w", err)
	}
	return nil
}

// Logs returns the last lines of each program's log, for the report of a failure.
func (c *ControlPlane) Logs() string {
	var b strings.Builder
	for _, p := range c.processes {
		fmt.Fprintf(&b, "--- %s, last lines:\n%s\n", p.name, p.tail())
	}
	return b.String()
}

// Address returns where the API server listens, as KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT would.
func (c *ControlPlane) Address() (host, port string) { return loopback, c.ports.apiserver }

// CA returns the PEM certificate of the authority that signed the API server's certificate.
func (c *ControlPlane) CA() []byte { return c.authority.certPEM }

// CAPool returns the same as a pool.
func (c *ControlPlane) CAPool() *x509.CertPool { return c.authority.pool() }

func (c *ControlPlane) file(name string) string { return filepath.Join(c.dir, name) }
