package fakeapi

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// mint sends a TokenRequest once, as the stock client does that was told not to retry by itself.
func mint(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) (*authenticationv1.TokenRequest, error) {
	out := &authenticationv1.TokenRequest{}
	err := client.CoreV1().RESTClient().Post().Namespace("default").Resource("serviceaccounts").Name("default").SubResource("token").
		Body(podTokenRequest(pod, "vault", 600)).MaxRetries(0).Do(ctx).Into(out)
	return out, err
}

// Each fault as a stock client sees it, and that the next request is served well.
func TestFaultsOfTokenRequests(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{})
	for _, c := range []struct {
		name  string
		fault Fault
		saw   func(*authenticationv1.TokenRequest, error) bool
		// code is what the journal has; issued counts tokens.
		code, issued int
	}{
		{"429", Fault{Action: Fail, Code: 429, RetryAfter: 1500 * time.Millisecond}, func(_ *authenticationv1.TokenRequest, err error) bool {
			after, ok := apierrors.SuggestsClientDelay(err)
			return apierrors.IsTooManyRequests(err) && ok && after == 2
		}, 429, 0},
		{"500", Fault{Action: Fail, Code: 500, Message: "no reason"}, func(_ *authenticationv1.TokenRequest, err error) bool {
			return apierrors.IsInternalError(err) && strings.Contains(err.Error(), "no reason")
		}, 500, 0},
		{"403", Fault{Action: Fail, Code: 403}, func(_ *authenticationv1.TokenRequest, err error) bool { return apierrors.IsForbidden(err) }, 403, 0},
		{"401", Fault{Action: Fail, Code: 401}, func(_ *authenticationv1.TokenRequest, err error) bool { return apierrors.IsUnauthorized(err) }, 401, 0},
		{"reason of one's own", Fault{Action: Fail, Code: 409, Reason: "Odd"}, func(_ *authenticationv1.TokenRequest, err error) bool { return apierrors.ReasonForError(err) == "Odd" }, 409, 0},
		{"failed though done", Fault{Action: Fail, Code: 500, Executed: true}, func(_ *authenticationv1.TokenRequest, err error) bool { return apierrors.IsInternalError(err) }, 500, 1},
		{"reset", Fault{Action: Reset}, func(_ *authenticationv1.TokenRequest, err error) bool { return isReset(err) }, 0, 0},
		{"reset though done", Fault{Action: Reset, Executed: true}, func(_ *authenticationv1.TokenRequest, err error) bool { return isReset(err) }, 0, 1},
		{"reset in the body", Fault{Action: ResetBody}, func(_ *authenticationv1.TokenRequest, err error) bool { return isReset(err) }, 201, 1},
		{"garbled", Fault{Action: Garble}, func(_ *authenticationv1.TokenRequest, err error) bool {
			return err != nil && apierrors.ReasonForError(err) == metav1.StatusReasonUnknown
		}, 201, 1},
		{"oversized", Fault{Action: Oversize, Size: 5 << 20}, func(tr *authenticationv1.TokenRequest, err error) bool {
			return err == nil && len(tr.Status.Token) >= 5<<20
		}, 201, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.ForgetRequests()
			before := len(w.TokenBytes())
			c.fault.Match, c.fault.Times = TokenRequests, 1
			w.Inject(c.fault)
			defer w.ClearFaults()
			client := clientset(t, w.Server)
			if tr, err := mint(testContext(t), client, w.pod); !c.saw(tr, err) {
				t.Errorf("the client saw %v", err)
			}
			got := w.Requests(TokenRequests)
			if len(got) != 1 || got[0].Code != c.code {
				t.Errorf("the journal has %+v, want one request with code %d", got, c.code)
			}
			if n := len(w.TokenBytes()) - before; n != c.issued {
				t.Errorf("%d tokens were issued, want %d", n, c.issued)
			}
			if _, err := mint(testContext(t), client, w.pod); err != nil {
				t.Errorf("the next request failed: %v", err)
			}
		})
	}
}

// isReset: the connection broke, whatever the transport makes of it.
func isReset(err error) bool {
	var status apierrors.APIStatus
	return err != nil && !errors.As(err, &status) && !errors.Is(err, context.DeadlineExceeded)
}

func TestTokenEdits(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{})
	now := time.Now().Unix()
	for _, c := range []struct {
		name string
		edit TokenEdit
		iat  int64 // relative to now
		exp  int64 // relative to iat
		aud  string
		spec int64
	}{
		{"none", TokenEdit{}, 0, 600, "vault", 600},
		{"expired", TokenEdit{Shift: -2 * time.Hour}, -7200, 600, "vault", 600},
		{"not yet valid", TokenEdit{Shift: time.Hour}, 3600, 600, "vault", 600},
		{"wrong audience", TokenEdit{Audiences: []string{"evil"}}, 0, 600, "evil", 600},
		{"far too short", TokenEdit{Lifetime: time.Second}, 0, 1, "vault", 1},
		{"far too long", TokenEdit{Lifetime: 1e6 * time.Second}, 0, 1e6, "vault", 1e6},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer w.Inject(Fault{Match: TokenRequests, Token: &c.edit})()
			tr, err := mint(testContext(t), clientset(t, w.Server), w.pod)
			if err != nil {
				t.Fatal(err)
			}
			_, claims := verified(t, w.Server, tr.Status.Token)
			iat := int64(claims["iat"].(float64))
			if d := iat - now - c.iat; d < 0 || d > 25 {
				t.Errorf("iat is %d s from where it should be", d)
			}
			if got := int64(claims["exp"].(float64)) - iat; got != c.exp {
				t.Errorf("the token lives %d s, want %d", got, c.exp)
			}
			if got := claims["aud"].([]any)[0]; got != c.aud || tr.Spec.Audiences[0] != c.aud {
				t.Errorf("aud is %v, want %s", got, c.aud)
			}
			if *tr.Spec.ExpirationSeconds != c.spec || tr.Status.ExpirationTimestamp.Unix()-iat != c.spec || tr.CreationTimestamp.Unix() != iat {
				t.Errorf("the answer says %d s from %v to %v", *tr.Spec.ExpirationSeconds, tr.CreationTimestamp, tr.Status.ExpirationTimestamp)
			}
		})
	}
	w.Inject(Fault{Match: TokenRequests, Token: &TokenEdit{Raw: func(string) string { return "opaque" }}})
	tr, err := mint(testContext(t), clientset(t, w.Server), w.pod)
	if err != nil || tr.Status.Token != "opaque" {
		t.Errorf("got %v, want the replaced token", err)
	}
	if all := w.TokenBytes(); !bytes.Equal(all[len(all)-1], []byte("opaque")) {
		t.Error("TokenBytes does not have the replaced token")
	}
}

// What hangs is answered when the fault goes; what hangs for ever is not; both end with the client and with the server.
func TestHang(t *testing.T) {
	t.Parallel()
	for _, action := range []Action{Hang, HangBody} {
		w := newTokenWorld(t, Options{})
		client := clientset(t, w.Server)
		result := make(chan error, 1)
		send := func(ctx context.Context) {
			go func() { _, err := mint(ctx, client, w.pod); result <- err }()
		}
		held := func(n int) {
			t.Helper()
			match := TokenRequests
			if action == HangBody {
				match.Func = func(r *Request) bool { return r.Code == 201 }
			}
			if _, err := w.WaitRequests(testContext(t), match, n); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-result:
				t.Fatalf("action %d did not hold the request: %v", action, err)
			default:
			}
		}
		remove := w.Inject(Fault{Match: TokenRequests, Action: action})
		send(testContext(t))
		held(1)
		remove()
		if err := <-result; err != nil {
			t.Errorf("action %d, removed: %v", action, err)
		}

		remove = w.Inject(Fault{Match: TokenRequests, Action: action, Forever: true})
		ctx, cancel := context.WithCancel(testContext(t))
		send(ctx)
		held(2)
		remove()
		for range 5 { // it would be let go by now
			if _, err := mint(testContext(t), client, w.pod); err != nil {
				t.Fatal(err)
			}
		}
		held(7)
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("action %d, for ever: %v", action, err)
		}

		w.Inject(Fault{Match: TokenRequests, Action: action, Forever: true})
		send(testContext(t))
		held(8)
		w.Close()
		if err := <-result; !isReset(err) {
			t.Errorf("action %d, server closed: %v", action, err)
		}
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{})
	const latency = 150 * time.Millisecond
	w.Inject(Fault{Match: TokenRequests, Latency: latency})
	before := time.Now()
	if _, err := mint(testContext(t), clientset(t, w.Server), w.pod); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(before); d < latency {
		t.Errorf("answered after %v, want at least %v", d, latency)
	}
}

// A fault hits what it matches, as often as it says, and the first of two wins.
func TestFaultMatching(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	code := func(path string) int { return do(t, s, "GET", path, nil).code }
	remove := s.Inject(Fault{Match: Match{Verb: "get", Resource: "configmaps", Namespace: "default", Name: "kube-root-ca.crt"}, Times: 2, Action: Fail, Code: 500})
	s.Inject(Fault{Match: Match{Resource: "configmaps", Func: func(r *Request) bool { return r.User == "kubernetes-admin" }}, Times: 1, Action: Fail, Code: 503})
	const path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
	for i, c := range []struct {
		path string
		code int
	}{
		{"/api/v1/namespaces/default/serviceaccounts/default", 200},
		{path, 500},
		{"/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt", 503},
		{"/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt", 200},
		{path, 500},
		{path, 200},
	} {
		if got := code(c.path); got != c.code {
			t.Errorf("request %d: got %d, want %d", i, got, c.code)
		}
	}
	remove()
	remove()
	s.Inject(Fault{Match: Match{}, Action: Fail, Code: 418})
	if got := code("/healthz"); got != 418 {
		t.Errorf("got %d: an empty match should match everything", got)
	}
	s.ClearFaults()
	if got := code("/healthz"); got != 200 {
		t.Errorf("got %d after all faults were cleared", got)
	}
}

// An informer lives through every fault of its watch.
func TestInformerSurvivesFaults(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]Fault{
		"reset": {Action: Reset}, "reset in the body": {Action: ResetBody}, "garbled": {Action: Garble}, "503": {Action: Fail, Code: 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, Options{})
			f.Match, f.Times = Match{Resource: "pods"}, 1
			s.Inject(f)
			_, events := podInformer(t, clientset(t, s), onNode)
			mustCreate(t, s, newPod("web"))
			expect(t, events, "add web")
		})
	}
}

// stealer listens as most programs other than Go's do: not on a port that anybody else is bound to.
var stealer = net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0)
	}), err)
}}

func TestServerDown(t *testing.T) {
	t.Parallel()
	w := newTokenWorld(t, Options{})
	_, events := podInformer(t, clientset(t, w.Server), onNode)
	expectAny(t, events, 1)
	client := clientset(t, w.Server)
	if _, err := mint(testContext(t), client, w.pod); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := w.GoDown(); err != nil {
			t.Fatal(err)
		}
		_, err := mint(testContext(t), client, w.pod)
		if isReset(err) { // of the connection that was there before
			_, err = mint(testContext(t), client, w.pod)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("got %v, want connection refused", err)
		}
		if l, err := stealer.Listen(testContext(t), "tcp", w.addr); err == nil {
			l.Close()
			t.Fatal("the port could be taken while the server was down")
		}
		if err := w.ComeBack(); err != nil {
			t.Fatal(err)
		}
		if _, err := mint(testContext(t), client, w.pod); err != nil {
			t.Fatalf("after coming back: %v", err)
		}
	}
	mustCreate(t, w.Server, newPod("late"))
	await(t, events, "add late") // perhaps after updates: a reflector whose watch was short lists anew
}

// await takes events until it sees this one.
func await(t testing.TB, events <-chan podEvent, want string) {
	t.Helper()
	ctx := testContext(t)
	for {
		select {
		case e := <-events:
			if e.what+" "+e.pod.Name == want {
				return
			}
		case <-ctx.Done():
			t.Fatalf("no event %q", want)
		}
	}
}

func expectAny(t testing.TB, events <-chan podEvent, n int) {
	t.Helper()
	for range n {
		select {
		case <-events:
		case <-testContext(t).Done():
			t.Fatal("no event")
		}
	}
}

// A reset is a real one: the kernel says so.
func TestResetIsReset(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	s.Inject(Fault{Match: TokenRequests, Action: Reset})
	client, err := kubernetes.NewForConfig(http1(s))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mint(testContext(t), client, newPod("web")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want ECONNRESET", err)
	}
}
