package clients

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

const (
	// lifetime is that of tokens where a client reads the file each time it needs one: the last fifth is for a busy machine.
	lifetime = 15 * time.Second
	// expiration is what the pod asks for, in seconds: the shortest that may be.
	expiration = 600
	// rotations is how often the token must have been renewed before a test is content.
	rotations = 3
	// account is whose tokens they are.
	account = "system:serviceaccount:demo:default"
)

func TestMain(m *testing.M) { os.Exit(daemontest.Main(m)) }

// world is an API server and a daemon that keeps the token of one pod fresh.
type world struct {
	t    *testing.T
	ctx  context.Context // ends a hopeless test
	api  *fakeapi.Server
	file string // the token
}

func newWorld(t *testing.T, o fakeapi.Options, audience string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	api, err := fakeapi.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	root := daemontest.MemoryDir(t)
	daemontest.Start(t, api, root)
	pod := createPod(t, api, audience)
	w := &world{t: t, ctx: ctx, api: api,
		file: filepath.Join(root, "pods", string(pod.UID), "volumes", "kubernetes.io~projected", "mine", "token")}
	w.waitRenewed(nil)
	return w
}

func createPod(t *testing.T, api *fakeapi.Server, audience string) *corev1.Pod {
	t.Helper()
	if err := api.AddNamespace("demo"); err != nil {
		t.Fatal(err)
	}
	pod, err := fakeapi.Create(api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: "client"},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, Containers: []corev1.Container{{Name: "main", Image: "scratch"}},
			Volumes: []corev1.Volume{{Name: "mine", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience: audience, ExpirationSeconds: new(int64(expiration)), Path: "token",
				}}},
			}}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func (w *world) read() []byte {
	w.t.Helper()
	token, err := os.ReadFile(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// waitRenewed waits until the file holds something else.
func (w *world) waitRenewed(before []byte) {
	w.t.Helper()
	daemontest.Eventually(w.t, "a new token", func() bool {
		now, err := os.ReadFile(w.file)
		return err == nil && !bytes.Equal(now, before)
	})
}

// planted is a token that the daemon has nothing to do with: well signed, and wrong as edit says.
func (w *world) planted(audience string, edit fakeapi.TokenEdit) string {
	w.t.Helper()
	f := fakeapi.Fault{Match: fakeapi.TokenRequests, Token: &edit}
	f.Match.Namespace = "default"
	defer w.api.Inject(f)()
	config := w.api.RESTConfig()
	config.WarningHandler = rest.NoWarnings{} // of the clamp
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		w.t.Fatal(err)
	}
	tr, err := client.CoreV1().ServiceAccounts("default").CreateToken(w.ctx, "default",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return tr.Status.Token
}
