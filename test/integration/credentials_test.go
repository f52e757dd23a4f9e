package integration

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// credential is what the daemon identifies itself with, in files that are replaced by others.
type credential struct {
	auth clientcmdapi.AuthInfo
	// write puts the credential of a user into the files, and returns the user's name for the server.
	write func(w *world, user string) string
}

func credentials(dir string) map[string]credential {
	certificate, key, token := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "token")
	return map[string]credential{
		"client certificate": {
			clientcmdapi.AuthInfo{ClientCertificate: certificate, ClientKey: key},
			func(w *world, user string) string {
				config, err := w.api.UserConfig(user)
				check(w.t, err)
				replaceFile(w.t, certificate, config.CertData)
				replaceFile(w.t, key, config.KeyData)
				return user
			},
		},
		"token": {
			clientcmdapi.AuthInfo{TokenFile: token},
			func(w *world, user string) string {
				check(w.t, w.api.AddNamespace("demo"))
				_, err := fakeapi.Create(w.api, serviceAccount(user))
				check(w.t, err)
				client, err := w.api.Clientset()
				check(w.t, err)
				answer, err := client.CoreV1().ServiceAccounts("demo").CreateToken(w.t.Context(), user, &authenticationv1.TokenRequest{
					Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(3600))},
				}, metav1.CreateOptions{})
				check(w.t, err)
				replaceFile(w.t, token, []byte(answer.Status.Token))
				return "system:serviceaccount:demo:" + user
			},
		},
	}
}

// replaceFile replaces a file by another one, as whoever renews a credential does.
func replaceFile(t *testing.T, path string, content []byte) {
	t.Helper()
	check(t, os.WriteFile(path+".new", content, 0o600))
	check(t, os.Rename(path+".new", path))
}

// startAs starts the daemon with a kubeconfig of these credentials.
func (w *world) startAs(auth clientcmdapi.AuthInfo) *daemon {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "kubeconfig")
	check(w.t, clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"fake": {Server: w.api.URL(), CertificateAuthorityData: w.api.CA()}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"daemon": &auth},
		Contexts:       map[string]*clientcmdapi.Context{"fake": {Cluster: "fake", AuthInfo: "daemon"}},
		CurrentContext: "fake",
	}, path))
	return w.start("--kubeconfig", path)
}

// requestsOf matches TokenRequests of a user.
func requestsOf(user string) fakeapi.Match {
	m := fakeapi.TokenRequests
	m.Func = func(r *fakeapi.Request) bool { return r.User == user }
	return m
}

// soonAfterCredential bounds the time from a new credential's files to the last token: the files of a certificate are
// read every two seconds, that of a token with each probe, a probe is sent each second or two, and a watch opened anew
// within four; the rest is for machines that have other work. Without the daemon's own doing it were five minutes, and
// fifty seconds.
const soonAfterCredential = 25 * time.Second

// TestCredentialRefused: the server refuses the daemon's credential, until there is another one in its files.
func TestCredentialRefused(t *testing.T) {
	for name, c := range credentials(t.TempDir()) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, fakeapi.Options{MaxTokenExpiration: faultTTL})
			old := c.write(w, "first")
			d := w.startAs(c.auth)
			pod := w.pod("demo", "web")
			w.waitPublished(pod)
			w.api.Inject(fakeapi.Fault{Match: fakeapi.Match{Func: func(r *fakeapi.Request) bool { return r.User == old }}, Action: fakeapi.Fail, Code: http.StatusUnauthorized})
			w.api.CutWatches()
			eventually(t, "refusals", func() bool { return d.metric("token_projector_token_requests_total", "code", "401") >= 2 })
			before, later := w.contents(pod), w.pod("demo", "later")
			replaced := time.Now()
			c.write(w, "second")
			w.waitRenewed(before, pod)
			w.waitPublished(later)
			took := time.Since(replaced)
			t.Logf("tokens %v after the new %s", took, name)
			if took > soonAfterCredential {
				t.Errorf("later than %v", soonAfterCredential)
			}
			d.Terminate()
		})
	}
}

// TestCertificateReplaced: a new certificate is used while the old one is still good, and no token expires meanwhile.
func TestCertificateReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{MaxTokenExpiration: 15 * time.Second})
	c := credentials(t.TempDir())["client certificate"]
	c.write(w, "first")
	d := w.startAs(c.auth)
	pod := w.pod("demo", "web")
	w.waitPublished(pod)
	r := startReader(time.Now, w.tokens(pod)...)
	second, replaced := c.write(w, "second"), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), soonAfterCredential)
	defer cancel()
	requests, err := w.api.WaitRequests(ctx, requestsOf(second), 1)
	check(t, err)
	t.Logf("a token was requested with the new certificate %v after it was there", requests[0].Time.Sub(replaced))
	eventually(t, "tokens by the new certificate", func() bool { return r.rotations() >= 2 })
	r.stop(t)
	d.Terminate()
}
