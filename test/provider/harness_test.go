package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestMain lets the test binary be the provider, too, and what that starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	os.Exit(m.Run())
}

// world is one fake API server, one root, and the provider run on them.
type world struct {
	t          *testing.T
	api        *fakeapi.Server
	kubeconfig string
	root       string
	processes  processes
	provider   *exec.Cmd // nil: none runs
	output     bytes.Buffer
}

func newWorld(t *testing.T, o fakeapi.Options) *world {
	t.Helper()
	o.Node = daemontest.Node
	api, err := fakeapi.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	w := &world{t: t, api: api, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), root: daemontest.MemoryDir(t), processes: processes{t.TempDir()}}
	if err := api.WriteKubeconfig(w.kubeconfig); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.finish)
	return w
}

// start starts the provider, which dies with this process; its containers do not.
func (w *world) start() {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(self, "run", "--node-name", daemontest.Node, "--kubeconfig", w.kubeconfig, "--root-dir", w.root, "--state-dir", w.processes.dir)
	cmd.Stdout, cmd.Stderr = &w.output, &w.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.provider = cmd
}

// kill is kill -9 of the provider.
func (w *world) kill() {
	w.t.Helper()
	w.provider.Process.Kill()
	if err := w.provider.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		w.t.Errorf("the provider had ended by itself: %v\n%s", err, &w.output)
	}
	w.provider = nil
}

// finish ends everything that was started, and looks for tokens where none may be.
func (w *world) finish() {
	if w.provider != nil {
		w.kill()
	}
	uids, err := w.processes.pods()
	if err != nil {
		w.t.Error(err)
	}
	for _, uid := range uids { // no provider runs, so no more processes can begin
		containers, err := w.processes.containers(uid)
		if err != nil {
			w.t.Error(err)
		}
		for _, name := range containers {
			if err := w.processes.stop(context.Background(), uid, name, 0); err != nil {
				w.t.Error(err)
			}
		}
	}
	text := w.output.String()
	logs, err := filepath.Glob(w.processes.output("*", "*"))
	if err != nil {
		w.t.Error(err)
	}
	for _, name := range logs {
		log, err := os.ReadFile(name)
		if err != nil {
			w.t.Error(err)
		}
		text += string(log)
	}
	w.wantNoTokens(text)
	if w.t.Failed() {
		w.t.Logf("the provider's output:\n%s", &w.output)
	}
}

func (w *world) wantNoTokens(text string) {
	tokens := w.api.TokenBytes()
	if len(tokens) > 0 && daemontest.Leaked(text+string(tokens[0]), tokens) == 0 {
		w.t.Error("the search misses a planted token")
	}
	if n := daemontest.Leaked(text, tokens); n > 0 {
		w.t.Errorf("%d tokens in the output", n)
	}
	if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		w.t.Errorf("output:\n%s", text)
	}
}

const (
	apiToken   = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	vaultToken = "/var/run/secrets/vault/token"
)

// pod creates a pod whose one container reads the token at path. It has the
// injected volume and one for vault.
func (w *world) pod(namespace, path string) *corev1.Pod {
	w.t.Helper()
	if err := w.api.AddNamespace(namespace); err != nil {
		w.t.Fatal(err)
	}
	pod, err := fakeapi.Create(w.api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "web"},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, TerminationGracePeriodSeconds: new(int64(1)),
			Volumes: []corev1.Volume{{Name: "vault", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault", Path: "token"}}},
			}}}},
			Containers: []corev1.Container{{
				Name: "main", Command: []string{selfInside, "read", path},
				VolumeMounts: []corev1.VolumeMount{{Name: "vault", MountPath: filepath.Dir(vaultToken), ReadOnly: true}},
			}},
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return pod
}

// deleteNow deletes a pod's object at once, whatever runs.
func (w *world) deleteNow(pod *corev1.Pod) {
	w.t.Helper()
	if err := w.api.Delete(pod, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err != nil {
		w.t.Fatal(err)
	}
}

// records are all that a pod's container has recorded so far.
func (w *world) records(uid types.UID) []record {
	w.t.Helper()
	text, err := os.ReadFile(w.processes.output(uid, "main"))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	var records []record
	for line := range bytes.Lines(text) {
		var r record
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // being written
		}
		if err := json.Unmarshal(line, &r); err != nil {
			w.t.Fatalf("the container says %q", line)
		}
		records = append(records, r)
	}
	return records
}

// waitRecords waits until n more records are there than were, and returns them all.
func (w *world) waitRecords(pod *corev1.Pod, more int) []record {
	w.t.Helper()
	n := len(w.records(pod.UID)) + more
	daemontest.Eventually(w.t, pod.Namespace+": records", func() bool { return len(w.records(pod.UID)) >= n })
	return w.records(pod.UID)
}

// tokensSeen is how many different tokens a pod's container has read.
func (w *world) tokensSeen(pod *corev1.Pod) int {
	w.t.Helper()
	seen := map[string]bool{}
	for _, r := range w.records(pod.UID) {
		if r.Sum != "" {
			seen[r.Sum] = true
		}
	}
	return len(seen)
}

func (w *world) signalled(pod *corev1.Pod) bool {
	w.t.Helper()
	for _, r := range w.records(pod.UID) {
		if r.Signal == syscall.SIGTERM.String() {
			return true
		}
	}
	return false
}

// interrupt ends a pod's reader.
func (w *world) interrupt(pod *corev1.Pod) {
	w.t.Helper()
	process := w.processes.find(pod.UID, "main")
	if process == nil {
		w.t.Fatal("no process to end")
	}
	if err := process.Signal(syscall.SIGINT); err != nil {
		w.t.Fatal(err)
	}
}

// judge says of all reads what is wrong with them. A good read is one whole token
// that was issued and has not expired.
func judge(records []record, issued [][]byte) []string {
	known := map[string]bool{}
	for _, token := range issued {
		sum := sha256.Sum256(token)
		known[hex.EncodeToString(sum[:])] = true
	}
	var faults []string
	for i, r := range records {
		switch {
		case r.Fault != "":
			faults = append(faults, r.Fault)
		case r.Signal != "":
		case !known[r.Sum]:
			faults = append(faults, "a token that nobody has issued")
		case !r.At.Before(r.Expires):
			faults = append(faults, fmt.Sprintf("a token that expired %v ago", r.At.Sub(r.Expires)))
		}
		if r.PID != records[0].PID {
			faults = append(faults, fmt.Sprintf("read %d is by another process", i))
		}
	}
	return faults
}

func (w *world) judge(pods ...*corev1.Pod) {
	w.t.Helper()
	for _, pod := range pods {
		records := w.records(pod.UID)
		if faults := judge(records, w.api.TokenBytes()); len(faults) > 0 {
			w.t.Errorf("%s: %d of %d reads are wrong, first: %s", pod.Namespace, len(faults), len(records), faults[0])
		}
	}
}

func (w *world) podDir(pod *corev1.Pod) string {
	return filepath.Join(w.root, "pods", string(pod.UID))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
