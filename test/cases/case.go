package cases

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Case is one thing that a server does.
type Case struct {
	// Group is the chapter of the list; Name says what is so, and is unique in its group.
	Group, Name string
	// Flags are those of the server; nil is Usual.
	Flags *Flags
	// Kubectl is set when the case runs kubectl. Where the target has none, the case does not run.
	Kubectl bool
	// OwnClock is set when the case lets time pass. On the fake it has a server of its own then.
	OwnClock bool
	// RealOnly says why the case does not run on the fake. "" is usual: it does.
	RealOnly string
	// Differs says why the fake answers otherwise on purpose. The case must fail there: when it does not, there is no
	// difference any more.
	Differs string
	// Run may call Fatalf only from its own goroutine.
	Run func(*World)
}

// Flags are what the operator of a server chooses.
type Flags struct {
	// Issuers: the first one issues, all are accepted.
	Issuers []string
	// Algs: the key of the first one signs, those of all are accepted.
	Algs []jose.SignatureAlgorithm
	// APIAudiences are those of the API itself; nil is all issuers.
	APIAudiences []string
	// MaxExpiration shortens longer lifetimes; 0 is off.
	MaxExpiration time.Duration
	// NoExtension: no token lives longer than it was asked to.
	NoExtension bool
	// JWKSURI is where discovery says that the keys are; "" is the server's own.
	JWKSURI string
}

// ClusterIssuer is the issuer that most clusters have.
const ClusterIssuer = "https://kubernetes.default.svc.cluster.local"

// A server for each of these is started.
var (
	// Usual is a server as most clusters run it.
	Usual = &Flags{Issuers: []string{ClusterIssuer}, Algs: []jose.SignatureAlgorithm{jose.RS256}}

	// Migrated has got another issuer and another key than Usual's, which it accepts still.
	Migrated = &Flags{
		Issuers: []string{"https://issuer.example/v2", ClusterIssuer}, Algs: []jose.SignatureAlgorithm{jose.ES256, jose.RS256},
		MaxExpiration: 2 * time.Hour, JWKSURI: "https://keys.example/jwks",
	}

	// Closed is of use within its cluster alone: its issuer is no address.
	Closed = &Flags{
		Issuers: []string{"cluster.internal"}, Algs: []jose.SignatureAlgorithm{jose.RS256},
		APIAudiences: []string{"api", "api2"}, NoExtension: true,
	}
)

// Server is one that cases run on. Its methods may be called from any goroutine.
type Server interface {
	// User is a client config with the certificate of a user; system:masters is the group of administrators.
	User(name string, groups ...string) (*rest.Config, error)
	// Bearer is a client config that presents token, and none at all for "".
	Bearer(token string) *rest.Config
	// Key is the key of that algorithm that the servers of the target sign tokens with.
	Key(alg jose.SignatureAlgorithm) crypto.Signer
	// Now is the server's time, and Pass lets d of it go by.
	Now() time.Time
	Pass(ctx context.Context, d time.Duration) error
}

// Target starts servers, or finds one that runs already: cases share those of equal flags.
type Target interface {
	Server(ctx context.Context, flags *Flags, ownClock bool) (Server, error)
	// Kubectl is how a command line of kubectl begins, nil where there is none.
	Kubectl() []string
}

// All is the list, in order.
func All() []Case {
	return slices.Concat(
		tokenRequests(), signatures(), reviews(), discovery(), accounts(), access(), watches(), commands(),
	)
}

// World is what a case runs in.
type World struct {
	Server
	Ctx     context.Context
	Admin   *rest.Config
	Client  *kubernetes.Clientset // of the administrator
	NS      string                // a namespace of the case's own, with its account "default"
	kubectl []string              // as Target has it
	errs    []error
}

// Errorf notes that something is wrong.
func (w *World) Errorf(format string, args ...any) {
	w.errs = append(w.errs, fmt.Errorf(format, args...))
}

// stopped is the panic of Fatalf.
type stopped struct{}

// Fatalf is Errorf, and ends the case.
func (w *World) Fatalf(format string, args ...any) {
	w.Errorf(format, args...)
	panic(stopped{})
}

// must ends the case if there is an error.
func (w *World) must(err error) {
	if err != nil {
		w.Fatalf("%w", err)
	}
}

// eventually waits until check returns nil, for what the real server does in a moment. Its last error ends the case.
func (w *World) eventually(check func() error) {
	var last error
	err := wait.PollUntilContextTimeout(w.Ctx, 10*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		w.Fatalf("%w: %w", err, last)
	}
}

// caseTimeout bounds one case. The longest wait for the end of a real token's leeway.
const caseTimeout = 4 * time.Minute

// Do runs the case and says what is wrong.
func (c Case) Do(ctx context.Context, target Target) (err error) {
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	w := &World{Ctx: ctx, kubectl: target.Kubectl()}
	defer func() {
		switch p := recover(); p.(type) {
		case nil, stopped:
			err = errors.Join(w.errs...)
		default:
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	w.enter(target, c)
	c.Run(w)
	return nil
}

// enter finds the server and makes the namespace.
func (w *World) enter(target Target, c Case) {
	flags := c.Flags
	if flags == nil {
		flags = Usual
	}
	var err error
	w.Server, err = target.Server(w.Ctx, flags, c.OwnClock)
	w.must(err)
	w.Admin, err = w.User("cases-admin", "system:masters")
	w.must(err)
	w.Client, err = kubernetes.NewForConfig(w.Admin)
	w.must(err)
	ns, err := w.Client.CoreV1().Namespaces().Create(w.Ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "case-"}}, metav1.CreateOptions{})
	w.must(err)
	w.NS = ns.Name
	w.eventually(w.ready)
}

// ready waits for what the controllers make in a new namespace: without it no pod can be created there.
func (w *World) ready() error {
	_, err := w.Client.CoreV1().ServiceAccounts(w.NS).Get(w.Ctx, "default", metav1.GetOptions{})
	_, err2 := w.Client.CoreV1().ConfigMaps(w.NS).Get(w.Ctx, "kube-root-ca.crt", metav1.GetOptions{})
	return errors.Join(err, err2)
}
