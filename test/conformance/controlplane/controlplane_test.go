package controlplane

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestControlPlane(t *testing.T) {
	plane, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = plane.Stop()
		}
	}()
	t.Run("nodes are restricted", func(t *testing.T) { testNodeIsRestricted(t, plane) })
	t.Run("requests are counted", func(t *testing.T) { testRequestsAreCounted(t, plane) })
	t.Run("kubeconfig", func(t *testing.T) { testKubeconfig(t, plane) })

	processes, dir := plane.processes, plane.dir
	if len(processes) != 3 {
		t.Fatalf("%d processes, want 3", len(processes))
	}
	if err := plane.Stop(); err != nil {
		t.Fatal(err)
	}
	stopped = true
	for _, p := range processes {
		if err := syscall.Kill(p.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s is still there: %v", p.name, err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func clientFor(t *testing.T, config *rest.Config) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func testNodeIsRestricted(t *testing.T, plane *ControlPlane) {
	config, err := plane.Node("a")
	if err != nil {
		t.Fatal(err)
	}
	pods := clientFor(t, config).CoreV1().Pods("")
	if _, err := pods.List(t.Context(), metav1.ListOptions{FieldSelector: "spec.nodeName=a"}); err != nil {
		t.Errorf("node a lists its pods: %v", err)
	}
	for _, selector := range []string{"", "spec.nodeName=b"} {
		_, err := pods.List(t.Context(), metav1.ListOptions{FieldSelector: selector})
		if !apierrors.IsForbidden(err) {
			t.Errorf("node a lists pods with selector %q: %v, want Forbidden", selector, err)
		}
	}
}

func testRequestsAreCounted(t *testing.T, plane *ControlPlane) {
	const user = "conformance-admin"
	accounts := clientFor(t, plane.Admin()).CoreV1().ServiceAccounts("default")
	for _, name := range []string{"default", "no-such-account"} {
		requests := count(t, plane.TokenRequests, user)
		_, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		if (err == nil) != (name == "default") {
			t.Errorf("token of %s: %v", name, err)
		}
		if got := count(t, plane.TokenRequests, user); got != requests+1 {
			t.Errorf("%d requests in the audit log after one for %s, want %d", got, name, requests+1)
		}
	}
	if got := count(t, plane.TokenRequests, "nobody"); got != 0 {
		t.Errorf("%d requests of nobody", got)
	}
	// The event of an answer may come a moment after the answer.
	for deadline := time.Now().Add(10 * time.Second); count(t, plane.TokensGranted, user) != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d tokens granted in the audit log, want 1", count(t, plane.TokensGranted, user))
		}
	}
}

func count(t *testing.T, events func(string) ([]auditv1.Event, error), user string) int {
	t.Helper()
	found, err := events(user)
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestStartSaysWhyItCouldNot(t *testing.T) {
	const script = "#!/bin/sh\ncase $1 in etcd) echo no etcd today >&2; exit 1;; *) exec sleep 1000;; esac\n"
	t.Setenv("TMPDIR", t.TempDir())
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	plane, err := start(t.Context(), program)
	if plane != nil || err == nil {
		t.Fatalf("start = %v, %v, want an error", plane, err)
	}
	for _, want := range []string{"etcd ended by itself", "no etcd today"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestParseAudit(t *testing.T) {
	const (
		received = `{"auditID":"1","stage":"RequestReceived"}` + "\n"
		complete = `{"auditID":"1","stage":"ResponseComplete"}` + "\n"
	)
	everything := func(*auditv1.Event) bool { return true }
	tests := []struct {
		name, log string
		want      int
		fails     bool
	}{
		{name: "nothing"},
		{name: "two", log: received + complete, want: 2},
		{name: "a line is being written", log: received + complete[:20], want: 1},
		{name: "garbage", log: received + "{\n", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			events, err := parseAudit([]byte(tt.log), everything)
			if len(events) != tt.want || (err != nil) != tt.fails {
				t.Errorf("parseAudit = %d events, %v, want %d, error %t", len(events), err, tt.want, tt.fails)
			}
		})
	}
	stage := func(e *auditv1.Event) bool { return e.Stage == auditv1.StageResponseComplete }
	if events, err := parseAudit([]byte(received+complete), stage); err != nil || len(events) != 1 {
		t.Errorf("parseAudit by stage = %v, %v", events, err)
	}
}
