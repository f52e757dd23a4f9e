package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestMain lets the test binary be the program, so that real signals can be sent to it.
func TestMain(m *testing.M) {
	if os.Getenv("BE_FAKE_APISERVER") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestBadFlags(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	good := filepath.Join(t.TempDir(), "kubeconfig")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--kubeconfig-out", good}, 0, ""}, // what the others are measured by
		{[]string{"--help"}, 0, ""},
		{nil, 2, "--kubeconfig-out is required"},
		{[]string{"--kubeconfig-out", good, "--nonsense"}, 2, "unknown flag: --nonsense"},
		{[]string{"--kubeconfig-out", good, "more"}, 2, `unexpected argument "more"`},
		{[]string{"--kubeconfig-out", good, "--listen", "nowhere"}, 2, "--listen: "},
		{[]string{"--kubeconfig-out", good, "--signing-alg", "none"}, 2, `--signing-alg must be RS256 or ES256, not "none"`},
		{[]string{"--kubeconfig-out", good, "--max-token-expiration", "1500ms"}, 2, "whole number of seconds"},
		{[]string{"--kubeconfig-out", good, "--max-token-expiration", "-1s"}, 2, "whole number of seconds"},
		{[]string{"--kubeconfig-out", good, "--token-requests-per-second", "-1"}, 2, "must not be negative"},
		{[]string{"--kubeconfig-out", good, "--node", "A B"}, 2, `--node must be a DNS name, not "A B"`},
		{[]string{"--kubeconfig-out", good + "/below/a/file"}, 1, "write the kubeconfig"},
	} {
		var stderr bytes.Buffer
		if code := run(ctx, c.args, io.Discard, &stderr); code != c.code {
			t.Errorf("%q: exit code %d, want %d", c.args, code, c.code)
		}
		if said := stderr.String(); !strings.Contains(said, c.says) || strings.Count(said, "\n") != min(1, c.code) {
			t.Errorf("%q: said %q, want one line with %q", c.args, said, c.says)
		}
	}
}

// The program as a user has it: one line, a kubeconfig that works, the demonstration pods, and a clean end by signal.
func TestProgram(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			kubeconfig, admin := filepath.Join(t.TempDir(), "kubeconfig"), filepath.Join(t.TempDir(), "admin")
			cmd := exec.CommandContext(t.Context(), os.Args[0], "--kubeconfig-out", kubeconfig, "--admin-kubeconfig-out", admin, "--demo", "--max-token-expiration", "5s", "--token-requests-per-second", "1")
			cmd.Env = append(os.Environ(), "BE_FAKE_APISERVER=1")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line := make([]byte, 4096)
			n, err := stdout.Read(line)
			if err != nil {
				t.Fatal(err)
			}
			want := regexp.MustCompile(`^serving on https://127\.0\.0\.1:\d+, kubeconfig ` + regexp.QuoteMeta(kubeconfig) + "\n$")
			if !want.Match(line[:n]) {
				t.Errorf("said %q", line[:n])
			}
			checkDemo(t, kubeconfig)
			checkAdmin(t, kubeconfig, admin)
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(stdout)
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || len(rest) > 0 || stderr.Len() > 0 {
				t.Errorf("ended with %v, further output %q, errors %q", err, rest, stderr.String())
			}
		})
	}
}

// checkAdmin: the administrator lists all accounts, and the node may not.
func checkAdmin(t *testing.T, node, admin string) {
	t.Helper()
	list := func(kubeconfig string) error {
		_, err := clientOf(t, kubeconfig).CoreV1().ServiceAccounts("").List(t.Context(), metav1.ListOptions{})
		return err
	}
	if err := list(admin); err != nil {
		t.Error(err)
	}
	if err := list(node); !apierrors.IsForbidden(err) {
		t.Errorf("the node lists all accounts: %v", err)
	}
}

func clientOf(t *testing.T, kubeconfig string) *kubernetes.Clientset {
	t.Helper()
	if info, err := os.Stat(kubeconfig); err != nil || info.Mode() != 0o600 {
		t.Errorf("the kubeconfig: %v, %v", info, err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func checkDemo(t *testing.T, kubeconfig string) {
	t.Helper()
	client := clientOf(t, kubeconfig)
	pods, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=demo-node,status.phase=Running"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var web *authenticationv1.BoundObjectReference
	for _, p := range pods.Items {
		if p.Name == "web" {
			web = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}
		}
		for _, v := range p.Spec.Volumes {
			got = append(got, p.Name+"/"+regexp.MustCompile(`^(kube-api-access)-[a-z0-9]{5}$`).ReplaceAllString(v.Name, "$1-*"))
		}
	}
	if want := "[slow-to-stop/kube-api-access-* vault-client/vault-token vault-client/kube-api-access-* web/kube-api-access-*]"; fmt.Sprint(got) != want {
		t.Errorf("got the volumes %v, want %v", got, want)
	}
	request := func() (*authenticationv1.TokenRequest, error) {
		into := &authenticationv1.TokenRequest{}
		return into, client.CoreV1().RESTClient().Post().Namespace("demo").Resource("serviceaccounts").Name("default").SubResource("token").
			Body(&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: web}}).MaxRetries(0).Do(t.Context()).Into(into)
	}
	tr, err := request()
	if err != nil || *tr.Spec.ExpirationSeconds != 5 {
		t.Errorf("got a token of %v s, %v; want 5", tr.Spec.ExpirationSeconds, err)
	}
	for i := 0; err == nil; i++ { // the limit is one per second
		if _, err = request(); i == 1000 {
			t.Fatal("no request was refused")
		}
	}
	if !apierrors.IsTooManyRequests(err) {
		t.Errorf("got %v, want 429 beyond the limit", err)
	}
}

// A whole turn of the demonstration, told by a watch.
func TestChurn(t *testing.T) {
	t.Parallel()
	s, err := fakeapi.Start(fakeapi.Options{Node: "n", FinalizePods: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	d := newDemo(s, "n")
	d.every, d.lives, d.grace = 400*time.Millisecond, 300*time.Millisecond, time.Second
	if err := d.seed(); err != nil {
		t.Fatal(err)
	}
	client, err := s.Clientset()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	w, err := client.CoreV1().Pods(demoNamespace).Watch(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=n"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	ended := make(chan error, 1)
	go func() { ended <- d.churn(ctx) }()

	// Each of these must happen, in the order of its own list.
	want := map[string][]string{
		"slow-to-stop":     {"ADDED", "MODIFIED terminating", "DELETED terminating", "ADDED", "MODIFIED terminating"},
		"comes-and-goes-1": {"ADDED", "MODIFIED", "MODIFIED terminating", "DELETED terminating"},
		"comes-and-goes-2": {"ADDED"},
	}
	for len(want) > 0 {
		e, ok := <-w.ResultChan()
		if !ok {
			t.Fatalf("the watch ended before %v", want)
		}
		pod := e.Object.(*corev1.Pod)
		what := string(e.Type)
		if pod.DeletionTimestamp != nil {
			what += " terminating"
		}
		if next := want[pod.Name]; len(next) > 0 && next[0] == what {
			want[pod.Name] = next[1:]
			if len(next) == 1 {
				delete(want, pod.Name)
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
