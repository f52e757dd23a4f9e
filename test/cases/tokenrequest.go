package cases

import (
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const tokenRequestGroup = "TokenRequest"

// tokenRequests: what an account's subresource "token" answers.
func tokenRequests() []Case {
	return slices.Concat(refusedRequests(), refusedBindings(), acceptedBindings(), answers(), lifetimes())
}

// refusal is a request that is refused: ask changes a good one for account ("" is default) and says what the answer is.
type refusal struct {
	name, account string
	ask           func(*World, *authenticationv1.TokenRequest) answer
}

func refusals(all []refusal) []Case {
	var out []Case
	for _, r := range all {
		if r.account == "" {
			r.account = "default"
		}
		out = append(out, Case{Group: tokenRequestGroup, Name: r.name, Run: func(w *World) {
			tr := tokenRequest()
			want := r.ask(w, tr)
			_, err := w.requestToken(r.account, tr)
			w.wantRefusal(err, want)
		}})
	}
	return out
}

func badRequest(message string) answer { return answer{400, metav1.StatusReasonBadRequest, message} }

// conflict is about an object, which is given as in `Pod "web"`.
func conflict(object, message string) answer {
	return answer{409, metav1.StatusReasonConflict, "Operation cannot be fulfilled on " + object + ": " + message}
}

// invalidRequest is about a TokenRequest, of which name is the account or "".
func invalidRequest(name, message string) answer {
	return answer{422, metav1.StatusReasonInvalid, fmt.Sprintf("TokenRequest.authentication.k8s.io %q is invalid: %s", name, message)}
}

const (
	tooShort = "may not specify a duration less than 10 minutes"
	tooLong  = "may not specify a duration larger than 2^32 seconds"
)

// refusedRequests are refused for what they say of the account and the lifetime. Those with "before" break two rules.
func refusedRequests() []Case {
	lasting := func(seconds int64, message string) func(*World, *authenticationv1.TokenRequest) answer {
		return func(_ *World, tr *authenticationv1.TokenRequest) answer {
			tr.Spec.ExpirationSeconds = &seconds
			return invalidRequest("", fmt.Sprintf("spec.expirationSeconds: Invalid value: %d: %s", seconds, message))
		}
	}
	return refusals([]refusal{
		{"an account that does not exist: 404", "missing", func(*World, *authenticationv1.TokenRequest) answer {
			return notFound("serviceaccounts", "missing")
		}},
		{"a namespace that is not the URL's: 400, before the name", "", func(_ *World, tr *authenticationv1.TokenRequest) answer {
			tr.Namespace, tr.Name = "kube-system", "x"
			return badRequest("the namespace of the provided object does not match the namespace sent on the request")
		}},
		{"a name that is not the URL's: 422, before the account", "missing", func(_ *World, tr *authenticationv1.TokenRequest) answer {
			tr.Name = "x"
			return invalidRequest("missing", `metadata.name: Invalid value: "x": must match the service account name if specified`)
		}},
		{"a missing account: 404, before its UID and the lifetime", "missing", func(_ *World, tr *authenticationv1.TokenRequest) answer {
			tr.UID, tr.Spec.ExpirationSeconds = "a", new(int64)
			return notFound("serviceaccounts", "missing")
		}},
		{"a UID that is not the account's: 409, before the lifetime", "", func(w *World, tr *authenticationv1.TokenRequest) answer {
			tr.UID, tr.Spec.ExpirationSeconds = "a", new(int64)
			return conflict(`TokenRequest.authentication.k8s.io "default"`, fmt.Sprintf(
				"the UID in the token request (a) does not match the UID of the service account (%s)", w.account("default").UID))
		}},
		{"599 seconds: 422", "", lasting(599, tooShort)},
		{"0 seconds: 422, they are not the default", "", lasting(0, tooShort)},
		{"a negative lifetime: 422", "", lasting(-1, tooShort)},
		{"2^32 + 1 seconds: 422", "", lasting(1<<32+1, tooLong)},
		{"too short a lifetime: 422, before the bound object", "", func(w *World, tr *authenticationv1.TokenRequest) answer {
			bind(tr, "Pod", "missing", "")
			return lasting(1, tooShort)(w, tr)
		}},
		{"attestations: 422", "", func(_ *World, tr *authenticationv1.TokenRequest) answer {
			tr.Spec.Attestations = map[string]authenticationv1.AttestationValue{"a": {"b"}}
			return invalidRequest("", `spec.attestations: Invalid value: {"a":["b"]}: attestations may only be specified with a webhook bound object reference`)
		}},
	})
}

// answers are what a request that is granted gets.
func answers() []Case {
	return []Case{
		{Group: tokenRequestGroup, Name: "an empty request gets the API's audience for an hour", Run: func(w *World) {
			answer := w.granted("default", &authenticationv1.TokenRequest{})
			w.wantEqual("audiences", answer.Spec.Audiences, []string{ClusterIssuer})
			w.wantLifetime(answer, 3600, 3600)
		}},
		{Group: tokenRequestGroup, Name: "the API's audiences are all issuers, if nobody chose others", Flags: Migrated, Run: func(w *World) {
			w.wantEqual("audiences", w.granted("default", tokenRequest()).Spec.Audiences, Migrated.Issuers)
		}},
		{Group: tokenRequestGroup, Name: "the API's audiences as they were chosen", Flags: Closed, Run: func(w *World) {
			w.wantEqual("audiences", w.granted("default", tokenRequest()).Spec.Audiences, Closed.APIAudiences)
		}},
		{Group: tokenRequestGroup, Name: "audiences are kept: any text, their order, their repetitions", Run: func(w *World) {
			audiences := []string{"vault", "", "https://a b", "vault"}
			w.wantEqual("audiences", w.granted("default", tokenRequest(audiences...)).Spec.Audiences, audiences)
		}},
		{Group: tokenRequestGroup, Name: "the answer has the account's name, namespace and UID, and the time", Run: func(w *World) {
			answer := w.granted("default", tokenRequest())
			w.wantNear("creationTimestamp", answer.CreationTimestamp.Time)
			answer.CreationTimestamp, answer.ManagedFields = metav1.Time{}, nil
			w.wantEqual("metadata", answer.ObjectMeta, metav1.ObjectMeta{Name: "default", Namespace: w.NS, UID: w.account("default").UID})
		}},
		{Group: tokenRequestGroup, Name: "the account's own name, namespace and UID are accepted, and labels are kept", Run: func(w *World) {
			tr := tokenRequest()
			tr.ObjectMeta = metav1.ObjectMeta{Name: "default", Namespace: w.NS, UID: w.account("default").UID, Labels: map[string]string{"a": "b"}}
			w.wantEqual("labels", w.granted("default", tr).Labels, tr.Labels)
		}},
		{Group: tokenRequestGroup, Name: "a status in the request is forgotten", Run: func(w *World) {
			tr := tokenRequest()
			tr.Status = authenticationv1.TokenRequestStatus{Token: "mine", ExpirationTimestamp: metav1.NewTime(time.Unix(1, 0))}
			answer := w.granted("default", tr)
			w.claimsOf(answer.Status.Token)
			w.wantLifetime(answer, 600, 600)
		}},
		{Group: tokenRequestGroup, Name: "201, with kind and version, for JSON", Run: func(w *World) { w.wantCreated("application/json", `{}`) }},
		{Group: tokenRequestGroup, Name: "201, for YAML", Run: func(w *World) { w.wantCreated("application/yaml", "spec: {}\n") }},
		{Group: tokenRequestGroup, Name: "a terminating account: granted", Run: func(w *World) {
			w.terminateAccount("leaving")
			w.token("leaving", tokenRequest())
		}},
		{Group: tokenRequestGroup, Name: "GET: 405", Run: func(w *World) {
			err := w.Client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces", w.NS, "serviceaccounts/default/token").Do(w.Ctx).Error()
			w.wantRefusal(err, answer{405, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource"})
		}},
	}
}

// wantCreated sends a raw request.
func (w *World) wantCreated(contentType, body string) {
	var code int
	var answer authenticationv1.TokenRequest
	result := w.Client.CoreV1().RESTClient().Post().AbsPath("/api/v1/namespaces", w.NS, "serviceaccounts/default/token").
		SetHeader("Content-Type", contentType).SetHeader("Accept", "application/json").Body([]byte(body)).Do(w.Ctx).StatusCode(&code)
	w.must(result.Into(&answer))
	raw, err := result.Raw()
	w.must(err)
	if !strings.HasPrefix(string(raw), `{"kind":"TokenRequest","apiVersion":"authentication.k8s.io/v1",`) {
		w.Errorf("the answer begins otherwise")
	}
	w.wantEqual("code", code, 201)
	w.claimsOf(answer.Status.Token)
}
