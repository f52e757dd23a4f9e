package fakeapi_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// A token that is bound to a pod, requested by a stock client and verified with the keys that the server publishes.
func Example() {
	server, err := fakeapi.Start(fakeapi.Options{Node: "node-1"})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	pod, err := fakeapi.Create(server, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:       corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "app", Image: "example.com/app"}}},
	})
	if err != nil {
		log.Fatal(err)
	}
	client, err := server.Clientset()
	if err != nil {
		log.Fatal(err)
	}
	answer, err := client.CoreV1().ServiceAccounts("default").CreateToken(context.Background(), "default",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences:      []string{"vault"},
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}, metav1.CreateOptions{})
	if err != nil {
		log.Fatal(err)
	}
	token, err := jwt.ParseSigned(answer.Status.Token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		log.Fatal(err)
	}
	var claims jwt.Claims
	if err := token.Claims(server.Keys(), &claims); err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.Subject, claims.Audience, claims.Expiry.Time().Sub(claims.IssuedAt.Time()))
	// Output: system:serviceaccount:default:default [vault] 1h0m0s
}

// What a client does when the server refuses, and what it sent meanwhile.
func ExampleServer_Inject() {
	server, err := fakeapi.Start(fakeapi.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	remove := server.Inject(fakeapi.Fault{
		Match: fakeapi.TokenRequests, Action: fakeapi.Fail, Code: http.StatusTooManyRequests, RetryAfter: time.Second, Times: 1,
	})
	defer remove()
	client, err := server.Clientset()
	if err != nil {
		log.Fatal(err)
	}
	// client-go obeys the Retry-After by itself, and its caller sees nothing.
	_, err = client.CoreV1().ServiceAccounts("default").
		CreateToken(context.Background(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	fmt.Println("error:", err)
	for _, r := range server.Requests(fakeapi.TokenRequests) {
		fmt.Println(r.Verb, r.Resource, r.Subresource, r.Code)
	}
	// Output:
	// error: <nil>
	// create serviceaccounts token 429
	// create serviceaccounts token 201
}

// Time is the caller's: a token is refused a minute after its end, and nobody has waited.
func ExampleOptions_now() {
	var later atomic.Int64
	server, err := fakeapi.Start(fakeapi.Options{Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	client, err := server.Clientset()
	if err != nil {
		log.Fatal(err)
	}
	seconds := int64(600)
	answer, err := client.CoreV1().ServiceAccounts("default").CreateToken(context.Background(), "default",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, age := range []time.Duration{0, 10*time.Minute + 30*time.Second, 11*time.Minute + 2*time.Second} {
		later.Store(int64(age))
		fmt.Println(age, accepts(server, answer.Status.Token))
	}
	// Output:
	// 0s true
	// 10m30s true
	// 11m2s false
}

// accepts reports whether the API takes the token as a credential.
func accepts(server *fakeapi.Server, token string) bool {
	config := server.RESTConfig()
	config.BearerToken = token
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.CoreV1().Namespaces().Get(context.Background(), "default", metav1.GetOptions{})
	return !apierrors.IsUnauthorized(err)
}
