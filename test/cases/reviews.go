package cases

import (
	"errors"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const reviewGroup = "TokenReview and bearer tokens"

// reviews: what a token is good for, and until when. What a TokenReview says holds for the same token as a credential.
func reviews() []Case {
	return slices.Concat(judgements(signatureJudgements()), judgements(timeJudgements()), judgements(bindingJudgements()), endings(), userCases(), reviewCases())
}

// judgement is what the server thinks of a token for the API.
type judgement struct {
	name  string
	flags *Flags
	// make is the token, and why it is refused; "" is that it is not.
	make func(*World) (token, why string)
}

func judgements(all []judgement) []Case {
	var out []Case
	for _, j := range all {
		out = append(out, Case{Group: reviewGroup, Name: j.name, Flags: j.flags, Run: func(w *World) {
			token, why := j.make(w)
			w.eventually(func() error { return w.judge(token, why) }) // what was deleted may be remembered for some seconds
		}})
	}
	return out
}

// judge says in what the server thinks otherwise of a token for the API than that it is refused for that reason, "" if it
// is not: as one who is asked, and as one whose credential it is.
func (w *World) judge(token, why string) error {
	status := w.review(token).Status
	_, err := w.self(token)
	switch {
	case why == "" && (err != nil || !status.Authenticated):
		return fmt.Errorf("refused: %q, %w", status.Error, err)
	case why == "":
		return nil
	case status.Authenticated || status.User.Username != "" || len(status.Audiences) > 0:
		return errors.New("accepted")
	case status.Error != why:
		return fmt.Errorf("refused with %q, want %q", status.Error, why)
	}
	if !apierrors.IsUnauthorized(err) || err.Error() != "Unauthorized" {
		return fmt.Errorf("as a credential: %v, want no more than Unauthorized", err)
	}
	return nil
}

// review asks who the token is, for audiences or for the API.
func (w *World) review(token string, audiences ...string) *authenticationv1.TokenReview {
	answer, err := w.Client.AuthenticationV1().TokenReviews().Create(w.Ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}, metav1.CreateOptions{})
	w.must(err)
	return answer
}

// self is who the server says that one with this credential is.
func (w *World) self(token string) (*authenticationv1.UserInfo, error) {
	client, err := kubernetes.NewForConfig(w.Bearer(token))
	w.must(err)
	answer, err := client.AuthenticationV1().SelfSubjectReviews().Create(w.Ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return &answer.Status.UserInfo, nil
}

const noToken = "invalid bearer token"

// because is the error of a token that was recognised, and refused.
func because(format string, args ...any) string {
	return "[" + noToken + ", " + fmt.Sprintf(format, args...) + "]"
}

// userCases: whom a token stands for.
func userCases() []Case {
	var out []Case
	// add's make is a request, and what is extra about its user.
	add := func(name string, make func(*World) (*authenticationv1.TokenRequest, map[string]string)) {
		out = append(out, Case{Group: reviewGroup, Name: "user: " + name, Run: func(w *World) {
			tr, extra := make(w)
			token := w.token("default", tr)
			want := w.user(token, extra)
			w.wantEqual("reviewed", w.review(token).Status.User, want)
			self, err := w.self(token)
			w.must(err)
			w.wantEqual("as a credential", *self, want)
		}})
	}
	add("the account, its groups in order, and the token's jti", func(*World) (*authenticationv1.TokenRequest, map[string]string) {
		return tokenRequest(), nil
	})
	add("of a pod on a node, with both", func(w *World) (*authenticationv1.TokenRequest, map[string]string) {
		node := w.createNode("a")
		pod := w.createPod(w.newPod("web", node.Name))
		return bind(tokenRequest(), "Pod", "web", ""), map[string]string{
			"pod-name": "web", "pod-uid": string(pod.UID), "node-name": node.Name, "node-uid": string(node.UID)}
	})
	add("of a pod on a node that does not exist, with its name", func(w *World) (*authenticationv1.TokenRequest, map[string]string) {
		pod := w.createPod(w.newPod("web", "gone"))
		return bind(tokenRequest(), "Pod", "web", ""), map[string]string{"pod-name": "web", "pod-uid": string(pod.UID), "node-name": "gone"}
	})
	add("of a node", func(w *World) (*authenticationv1.TokenRequest, map[string]string) {
		node := w.createNode("a")
		return bind(tokenRequest(), "Node", node.Name, ""), map[string]string{"node-name": node.Name, "node-uid": string(node.UID)}
	})
	add("of a Secret, which is not told", func(w *World) (*authenticationv1.TokenRequest, map[string]string) {
		return bind(tokenRequest(), "Secret", w.createSecret("bound").Name, ""), nil
	})
	return out
}

// user is the account "default" with a token.
func (w *World) user(token string, extra map[string]string) authenticationv1.UserInfo {
	const prefix = "authentication.kubernetes.io/"
	all := map[string]authenticationv1.ExtraValue{prefix + "credential-id": {fmt.Sprint("JTI=", w.claimsOf(token)["jti"])}}
	for name, value := range extra {
		all[prefix+name] = authenticationv1.ExtraValue{value}
	}
	return authenticationv1.UserInfo{
		Username: "system:serviceaccount:" + w.NS + ":default", UID: string(w.account("default").UID), Extra: all,
		Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + w.NS, "system:authenticated"},
	}
}

// reviewCases: the request itself, and audiences.
func reviewCases() []Case {
	var out []Case
	add := func(name string, flags *Flags, run func(*World)) {
		out = append(out, Case{Group: reviewGroup, Name: name, Flags: flags, Run: run})
	}
	// audiences of a token, and of a review; of both together, or why there are none.
	audiences := func(name string, flags *Flags, of, asked, both []string, why string) {
		add("audiences: "+name, flags, func(w *World) {
			status := w.review(w.token("default", tokenRequest(of...)), asked...).Status
			w.wantEqual("audiences", status.Audiences, both)
			w.wantEqual("error", status.Error, why)
			w.wantEqual("authenticated", status.Authenticated, why == "")
		})
	}
	audiences("those that were asked for, in that order", Usual, []string{"a", "b", "c"}, []string{"c", "x", "a"}, []string{"c", "a"}, "")
	audiences("none that was asked for", Usual, []string{"a", "b"}, []string{"x", "y"}, nil,
		because(`token audiences ["a" "b"] is invalid for the target audiences ["x" "y"]`))
	audiences("the API's, if none is asked for", Closed, []string{"a", "api2"}, nil, []string{"api2"}, "")
	audiences("for others than the API, if none is asked for", Usual, []string{"a"}, nil, nil,
		because(`token audiences ["a"] is invalid for the target audiences [%q]`, ClusterIssuer))
	audiences("another than the API's, if that is asked for", Usual, []string{"a"}, []string{"a"}, []string{"a"}, "")

	add("no token: 400", Usual, func(w *World) {
		_, err := w.Client.AuthenticationV1().TokenReviews().Create(w.Ctx, &authenticationv1.TokenReview{}, metav1.CreateOptions{})
		w.wantRefusal(err, badRequest("token is required for TokenReview in authentication"))
	})
	add("201, with the request in it, for JSON", Usual, func(w *World) { w.wantReviewed("application/json", `{"spec":{"token":"a.b.c"}}`) })
	add("201, for YAML", Usual, func(w *World) { w.wantReviewed("application/yaml", "spec: {token: a.b.c}") })
	add("a list of TokenReviews: 405", Usual, func(w *World) {
		err := w.Client.AuthenticationV1().RESTClient().Get().Resource("tokenreviews").Do(w.Ctx).Error()
		w.wantRefusal(err, answer{405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource"})
	})
	return out
}

func (w *World) wantReviewed(contentType, body string) {
	var code int
	var got authenticationv1.TokenReview
	w.must(w.Client.AuthenticationV1().RESTClient().Post().Resource("tokenreviews").SetHeader("Content-Type", contentType).
		Body([]byte(body)).Do(w.Ctx).StatusCode(&code).Into(&got))
	w.wantEqual("code", code, 201)
	w.wantEqual("spec", got.Spec, authenticationv1.TokenReviewSpec{Token: "a.b.c"})
	w.wantEqual("status", got.Status, authenticationv1.TokenReviewStatus{Error: noToken})
}
