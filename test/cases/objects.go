package cases

import (
	"errors"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// answer is the Status of a refusal, as far as a client reads it.
type answer struct {
	Code    int32
	Reason  metav1.StatusReason
	Message string
}

// wantRefusal checks that err is exactly that answer.
func (w *World) wantRefusal(err error, want answer) {
	var api apierrors.APIStatus
	if !errors.As(err, &api) {
		w.Errorf("got %v, want %+v", err, want)
		return
	}
	st := api.Status()
	w.wantEqual("refusal", answer{st.Code, st.Reason, st.Message}, want)
}

// wantEqual compares what the server said with what it should have.
func (w *World) wantEqual(what string, got, want any) {
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// newPod is a pod of the namespace with one container, on no node for "".
func (w *World) newPod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.NS, Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "app", Image: "none.invalid/app"}}},
	}
}

func (w *World) createPod(pod *corev1.Pod) *corev1.Pod {
	pod, err := w.Client.CoreV1().Pods(w.NS).Create(w.Ctx, pod, metav1.CreateOptions{})
	w.must(err)
	return pod
}

func (w *World) createAccount(name string) *corev1.ServiceAccount {
	account, err := w.Client.CoreV1().ServiceAccounts(w.NS).Create(w.Ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	w.must(err)
	return account
}

// createNode makes a node whose name begins with the namespace's, which no other case has.
func (w *World) createNode(name string) *corev1.Node {
	node, err := w.Client.CoreV1().Nodes().Create(w.Ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.NS + "-" + name}}, metav1.CreateOptions{})
	w.must(err)
	return node
}

// tokenRequest is one of ten minutes for some audiences, bound to nothing.
func tokenRequest(audiences ...string) *authenticationv1.TokenRequest {
	seconds := int64(600)
	return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: &seconds}}
}

// requestToken sends the request for an account of the namespace as the administrator.
func (w *World) requestToken(account string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return w.Client.CoreV1().ServiceAccounts(w.NS).CreateToken(w.Ctx, account, tr, metav1.CreateOptions{})
}
