package projector

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/rotation"
)

// memoryDir is a fresh directory, in memory if the machine has such a place.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "token-projector-test-")
	if err != nil {
		dir, err = os.MkdirTemp("", "token-projector-test-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func openTestRoot(t testing.TB, dir string) *Root {
	t.Helper()
	root, err := OpenRoot(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// sign makes a token shaped as the API server's (pkg/serviceaccount/claims.go).
// Nothing here verifies signatures, so one serves all; that keeps a month of
// rotations short.
func sign(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return tokenHeader + "." + encode(payload) + "." + encode(make([]byte, 64))
}

// tokenHeader is the first part of every token that sign makes.
var tokenHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"test"}`))

func claimsFor(r Request, issued time.Time, ttl time.Duration) map[string]any {
	audience := r.Audience
	if audience == "" {
		audience = "https://kubernetes.default.svc"
	}
	return map[string]any{
		"aud": []string{audience}, "sub": "system:serviceaccount:" + r.Namespace + ":" + r.ServiceAccount,
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": issued.Add(ttl).Unix(), "jti": rand.Text(),
		"kubernetes.io": map[string]any{"namespace": r.Namespace, "pod": map[string]any{"name": r.PodName, "uid": r.PodUID}},
	}
}

// ofAccount has claims name the UID of their service account; "": leaves them alone.
func ofAccount(claims map[string]any, uid types.UID) map[string]any {
	if uid != "" {
		claims["kubernetes.io"].(map[string]any)["serviceaccount"] = map[string]any{"uid": uid}
	}
	return claims
}

// issuer mints in this process, on the time of the test.
type issuer struct {
	mu    sync.Mutex
	count int
	fail  func(Request) error // nil: never
	now   func() time.Time
	took  time.Duration
}

func (i *issuer) mint(ctx context.Context, r Request) (Minted, error) {
	i.mu.Lock()
	i.count++
	fail := i.fail
	i.mu.Unlock()
	select {
	case <-time.After(i.took):
	case <-ctx.Done():
		return Minted{}, ctx.Err()
	}
	if fail != nil {
		if err := fail(r); err != nil {
			return Minted{}, err
		}
	}
	issued := i.now().Truncate(time.Second)
	ttl := time.Duration(r.ExpirationSeconds) * time.Second
	return Minted{
		Token:      NewToken(sign(claimsFor(r, issued, ttl))),
		Lifetime:   rotation.Lifetime{Issued: issued, Expires: issued.Add(ttl)},
		ServerTime: issued,
	}, nil
}

func (i *issuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.count
}

// testPod has the volume that admission injects and, if audience is not "",
// one more with a token of ttl seconds for that audience.
func testPod(n int, audience string, ttl int64) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("pod-%d", n), UID: types.UID(fmt.Sprintf("uid-%d", n)),
		},
		Spec: corev1.PodSpec{ServiceAccountName: "default", Volumes: []corev1.Volume{
			projected("kube-api-access-x", tokenSource("", 3607, "token"),
				configMapSource("kube-root-ca.crt", "ca.crt"), namespaceSource()),
		}},
	}
	if audience != "" {
		pod.Spec.Volumes = append(pod.Spec.Volumes, projected("extra", tokenSource(audience, ttl, "extra-token")))
	}
	return pod
}

func projected(name string, sources ...corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{DefaultMode: new(int32(0o644)), Sources: sources},
	}}
}

func tokenSource(audience string, ttl int64, path string) corev1.VolumeProjection {
	return corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
		Audience: audience, ExpirationSeconds: &ttl, Path: path,
	}}
}

func configMapSource(name, key string) corev1.VolumeProjection {
	return corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
		LocalObjectReference: corev1.LocalObjectReference{Name: name},
		Items:                []corev1.KeyToPath{{Key: key, Path: key}},
	}}
}

func namespaceSource() corev1.VolumeProjection {
	return corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
		{Path: "namespace", FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
	}}}
}

var rootCA = ObjectRef{Kind: "ConfigMap", Namespace: "default", Name: "kube-root-ca.crt"}
