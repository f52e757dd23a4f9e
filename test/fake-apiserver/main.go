// Command fake-apiserver runs package fakeapi alone: a Kubernetes API server for demonstrations and tests, with
// everything in memory and really signed tokens. It says on one line where it serves, and ends with SIGINT or SIGTERM.
//
//	fake-apiserver --kubeconfig-out FILE [--admin-kubeconfig-out FILE] [--listen ADDRESS] [--node NAME] [--signing-alg RS256|ES256]
//	               [--max-token-expiration DURATION] [--token-requests-per-second N] [--demo]
//
// The kubeconfig holds a client certificate of the node, who may do what a node may; the administrator's is for your
// kubectl. It is for loopback: anybody else with a credential may do everything.
package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/token-projector/token-projector/test/fakeapi"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run serves until ctx ends. It returns the exit code: 2 for bad flags, 1 for any other failure.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, err := parse(args)
	if errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintf(stdout, "Usage of fake-apiserver:\n%s", f.set.FlagUsages())
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "fake-apiserver:", err)
		return 2
	}
	if err := serve(ctx, f, stdout); err != nil {
		fmt.Fprintln(stderr, "fake-apiserver:", err)
		return 1
	}
	return 0
}

// flags are the command line.
type flags struct {
	set        *pflag.FlagSet
	listen     string
	kubeconfig string
	admin      string
	signingAlg string
	maxToken   time.Duration
	perSecond  int
	node       string
	demo       bool
}

func parse(args []string) (*flags, error) {
	f := &flags{set: pflag.NewFlagSet("fake-apiserver", pflag.ContinueOnError)}
	f.set.SetOutput(io.Discard)
	f.set.StringVar(&f.listen, "listen", "127.0.0.1:0", "TCP address to serve on; port 0 chooses a free one")
	f.set.StringVar(&f.kubeconfig, "kubeconfig-out", "", "file to write a kubeconfig of the node to, once serving (required)")
	f.set.StringVar(&f.admin, "admin-kubeconfig-out", "", "file to write a kubeconfig of the administrator to, for kubectl")
	f.set.StringVar(&f.signingAlg, "signing-alg", string(jose.ES256), "signature of tokens: RS256 or ES256")
	f.set.DurationVar(&f.maxToken, "max-token-expiration", 0, "shorten longer token lifetimes to this, which may be seconds; 0 is off")
	f.set.IntVar(&f.perSecond, "token-requests-per-second", 0, "answer TokenRequests beyond this with 429 and Retry-After: 1; 0 is no limit")
	f.set.StringVar(&f.node, "node", "demo-node", "name of the node")
	f.set.BoolVar(&f.demo, "demo", false, "keep demonstration pods on the node, in namespace demo")
	if err := f.set.Parse(args); err != nil {
		return f, err
	}
	return f, f.check()
}

func (f *flags) check() error {
	if f.set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.set.Arg(0))
	}
	if _, err := net.ResolveTCPAddr("tcp", f.listen); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if f.kubeconfig == "" {
		return errors.New("--kubeconfig-out is required")
	}
	if alg := jose.SignatureAlgorithm(f.signingAlg); alg != jose.ES256 && alg != jose.RS256 {
		return fmt.Errorf("--signing-alg must be RS256 or ES256, not %q", f.signingAlg)
	}
	if f.maxToken < 0 || f.maxToken%time.Second != 0 {
		return fmt.Errorf("--max-token-expiration must be 0 or a whole number of seconds, not %v", f.maxToken)
	}
	if f.perSecond < 0 {
		return fmt.Errorf("--token-requests-per-second must not be negative, is %d", f.perSecond)
	}
	if len(validation.IsDNS1123Subdomain(f.node)) > 0 {
		return fmt.Errorf("--node must be a DNS name, not %q", f.node)
	}
	return nil
}

func serve(ctx context.Context, f *flags, stdout io.Writer) error {
	key, err := fakeapi.NewSigningKey(jose.SignatureAlgorithm(f.signingAlg))
	if err != nil {
		return err
	}
	s, err := fakeapi.Start(fakeapi.Options{
		Listen: f.listen, Node: f.node, SigningKeys: []crypto.Signer{key}, MaxTokenExpiration: f.maxToken,
		FinalizePods: true, Forgetful: true,
	})
	if err != nil {
		return err
	}
	defer s.Close()
	if f.perSecond > 0 {
		s.Inject(fakeapi.LimitTokenRequests(f.perSecond))
	}
	d := newDemo(s, f.node)
	if f.demo {
		if err := d.seed(); err != nil {
			return err
		}
	}
	if f.admin != "" {
		if err := s.WriteAdminKubeconfig(f.admin); err != nil {
			return err
		}
	}
	if err := s.WriteKubeconfig(f.kubeconfig); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "serving on %s, kubeconfig %s\n", s.URL(), f.kubeconfig)
	if f.demo {
		return d.churn(ctx)
	}
	<-ctx.Done()
	return nil
}
