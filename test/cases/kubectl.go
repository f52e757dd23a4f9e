package cases

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubectlTimeout bounds one command.
const kubectlTimeout = time.Minute

// kubectl runs commands as the administrator, in the namespace of the case. It has a home of its own, so that nothing of
// the user's is read, and nothing is left of what it caches.
type kubectl struct {
	*World
	home string
}

// withKubectl is the Run of a case that runs kubectl.
func withKubectl(run func(*kubectl)) func(*World) {
	return func(w *World) {
		home, err := os.MkdirTemp("", "kubectl-")
		w.must(err)
		defer os.RemoveAll(home)
		k := &kubectl{w, home}
		w.must(writeKubeconfig(k.kubeconfig(), w.Admin, w.NS))
		run(k)
	}
}

func (k *kubectl) kubeconfig() string { return filepath.Join(k.home, "kubeconfig") }

func writeKubeconfig(file string, config *rest.Config, namespace string) error {
	const name = "case"
	return clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: config.Host, CertificateAuthorityData: config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificateData: config.CertData, ClientKeyData: config.KeyData}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name, Namespace: namespace}},
		CurrentContext: name,
	}, file)
}

// command is kubectl with these arguments; it ends with ctx, and with this process.
func (k *kubectl) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append(k.kubectl[1:len(k.kubectl):len(k.kubectl)], args...)
	cmd := exec.CommandContext(ctx, k.kubectl[0], args...)
	cmd.Dir, cmd.Env = k.home, []string{"HOME=" + k.home, "KUBECONFIG=" + k.kubeconfig()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// printed is how a command ended. Of a case's namespace there is only NS in the texts.
type printed struct {
	Stdout, Stderr string
	Code           int
}

// run runs one command to its end.
func (k *kubectl) run(stdin string, args ...string) printed {
	ctx, cancel := context.WithTimeout(k.Ctx, kubectlTimeout)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := k.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		k.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	shown := strings.NewReplacer(k.NS, "NS")
	return printed{shown.Replace(stdout.String()), shown.Replace(stderr.String()), cmd.ProcessState.ExitCode()}
}

// prints checks that the command, whose words have no spaces, succeeds and prints just that.
func (k *kubectl) prints(want, line string) {
	k.wantEqual("kubectl "+line, k.run("", strings.Fields(line)...), printed{Stdout: want})
}

// fails checks that the command ends with 1 and prints only that error.
func (k *kubectl) fails(want, line string) {
	k.wantEqual("kubectl "+line, k.run("", strings.Fields(line)...), printed{Stderr: want, Code: 1})
}

// printedClaims are those of the token that the command prints, which nobody has verified.
type printedClaims struct {
	jwt.Claims
	Kubernetes struct {
		Pod    boundInToken `json:"pod"`
		Secret boundInToken `json:"secret"`
		Node   boundInToken `json:"node"`
	} `json:"kubernetes.io"`
}

type boundInToken struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

func (k *kubectl) token(line string) (c printedClaims) {
	out := k.run("", strings.Fields(line)...)
	if out.Code != 0 || out.Stderr != "" {
		k.Fatalf("kubectl %s: ended with %d: %s", line, out.Code, out.Stderr)
	}
	token, err := jwt.ParseSigned(strings.TrimSuffix(out.Stdout, "\n"), Usual.Algs)
	if err != nil {
		k.Fatalf("kubectl %s: printed no token", line) // the error would show what it printed
	}
	k.must(token.UnsafeClaimsWithoutVerification(&c))
	return c
}

func (c printedClaims) lifetime() time.Duration { return c.Expiry.Time().Sub(c.IssuedAt.Time()) }
