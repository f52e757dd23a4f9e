package controlplane

import (
	"context"
	"crypto"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/test/cases"
)

// Server is one kube-apiserver of the control plane. All of them share the objects.
type Server struct {
	plane   *ControlPlane
	port    string
	process *process // nil for the first one, which is not restarted
}

// Server returns the one with these flags, and starts it when there is none yet: cases.Target. Equal is the same pointer.
// Time cannot be moved, so ownClock makes no difference.
func (c *ControlPlane) Server(ctx context.Context, flags *cases.Flags, _ bool) (cases.Server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if flags == cases.Usual {
		return &Server{plane: c, port: c.ports.apiserver}, nil
	}
	if s := c.servers[flags]; s != nil {
		return s, nil
	}
	s, err := c.startServer(ctx, flags)
	if err != nil {
		return nil, err
	}
	if c.servers == nil {
		c.servers = map[*cases.Flags]*Server{}
	}
	c.servers[flags] = s
	return s, nil
}

// ServerWith starts one more server, which is the caller's own: as usual, but for these command-line flags, which Restart
// drops.
func (c *ControlPlane) ServerWith(ctx context.Context, arguments ...string) (*Server, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.startServer(ctx, cases.Usual, arguments...)
}

// Kubectl is how a command line of kubectl begins: the one of the control plane's release, whichever is installed.
func (c *ControlPlane) Kubectl() []string { return []string{c.binary, "kubectl"} }

func (c *ControlPlane) startServer(ctx context.Context, flags *cases.Flags, arguments ...string) (*Server, error) {
	p, err := freePorts()
	if err != nil {
		return nil, err
	}
	s := &Server{plane: c, port: p.apiserver}
	if err := c.run(c.binary, "kube-apiserver", append(c.apiserverFlags(s.port, flags), arguments...)); err != nil {
		return nil, fmt.Errorf("start one more API server: %w", err)
	}
	s.process = c.processes[len(c.processes)-1]
	if err := s.awaitReady(ctx); err != nil {
		return nil, fmt.Errorf("start one more API server: %w", err)
	}
	return s, nil
}

// Restart ends a server that is not the first one, and starts it on the same port with other flags. Its pointer stays that
// of the old flags.
func (s *Server) Restart(ctx context.Context, flags *cases.Flags) error {
	c := s.plane
	c.mu.Lock()
	defer c.mu.Unlock()
	s.process.kill()
	p, err := startProcess(s.process.name, c.binary, s.process.logFile, append([]string{s.process.name}, c.apiserverFlags(s.port, flags)...)...)
	if err != nil {
		return err
	}
	c.processes[slices.Index(c.processes, s.process)], s.process = p, p
	return s.awaitReady(ctx)
}

func (s *Server) awaitReady(ctx context.Context) error {
	admin, err := s.User("conformance-admin", "system:masters")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(admin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.plane.await(ctx, "the API server", func(ctx context.Context) (bool, error) { return ready(ctx, client), nil })
}

// Address returns where this server listens, as ControlPlane's does.
func (s *Server) Address() (host, port string) { return loopback, s.port }

func (s *Server) at(config *rest.Config) *rest.Config {
	config.Host = "https://" + net.JoinHostPort(loopback, s.port)
	return config
}

// User is a client config with the certificate of a user.
func (s *Server) User(name string, groups ...string) (*rest.Config, error) {
	config, err := s.plane.clientConfig(name, groups...)
	if err != nil {
		return nil, err
	}
	return s.at(config), nil
}

// Bearer is a client config that presents token, and none at all for "".
func (s *Server) Bearer(token string) *rest.Config { return s.at(s.plane.Bearer(token)) }

// Key is the private key of that algorithm.
func (s *Server) Key(alg jose.SignatureAlgorithm) crypto.Signer { return s.plane.keys[alg] }

// Now is the time of this machine, which is the server's.
func (s *Server) Now() time.Time { return time.Now() }

// Pass waits.
func (s *Server) Pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
