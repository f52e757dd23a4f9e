package projector

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/rotation"
)

// Request asks for one token, bound to one pod.
type Request struct {
	Namespace, ServiceAccount string
	PodName                   string
	PodUID                    types.UID
	Audience                  string // "": the API server's own
	ExpirationSeconds         int64
}

// Minted is the answer to a Request.
type Minted struct {
	Token    Token
	Lifetime rotation.Lifetime
	// AccountUID is of the service account that the token is of, as its claims say;
	// "": unknown, and nobody notices when it is another one's.
	AccountUID types.UID
	// ServerTime is the server's clock when it made the token; zero if unknown,
	// or told otherwise, as HearServer does.
	ServerTime time.Time
}

// Mint carries out a Request. It returns within a bounded time whatever the
// server does. An error that is a *MintError says more; any other counts as no
// answer.
type Mint func(context.Context, Request) (Minted, error)

// MintError is a refused or failed Request, or look-up of a service account.
type MintError struct {
	// Code is the HTTP status; 0: no answer, or none that could be decoded; 201:
	// an answer without a usable token.
	Code int
	// RetryAfter is the pause that the server asked for; 0: none. Of an answer
	// whose body is a Status it is the Status's, whatever the header says.
	RetryAfter time.Duration
	Message    string // never holds a token
}

// Error implements error.
func (e *MintError) Error() string {
	if e.Code == 0 {
		return e.Message
	}
	return fmt.Sprintf("%d: %s", e.Code, e.Message)
}

// advice is what to do about it. It is asked for again in any case.
func (e *MintError) advice() string {
	switch {
	case e.ofServer():
		return "look at the API server, and the way to it"
	case e.Code == http.StatusForbidden:
		return "let the node request it: for a pod of its own, with an audience of the pod's spec"
	case e.Code == http.StatusNotFound:
		return "create the service account, or delete the pod"
	case e.Code == http.StatusConflict:
		return "create the pod anew: this one, or its service account, was replaced"
	case e.Code == unusable:
		return "look at the API server's signer"
	}
	return "correct what the pod asks for"
}

// label is the value of the metric label code.
func (e *MintError) label() string {
	switch e.Code {
	case 0:
		return "none"
	case unusable:
		return "unusable"
	}
	return strconv.Itoa(e.Code)
}

// ofServer reports whether such a failure is the server's, shared by all
// tokens of the node, rather than this token's own.
func (e *MintError) ofServer() bool {
	return e.Code == 0 || e.Code == http.StatusUnauthorized || e.Code == http.StatusTooManyRequests || e.Code >= 500
}

// asMintError turns any error of a Mint into a MintError. Whoever wrote the Mint, what it says is scrubbed.
func asMintError(err error) *MintError {
	if e, ok := errors.AsType[*MintError](err); ok {
		scrubbed := *e
		scrubbed.Message = scrub(e.Message)
		return &scrubbed
	}
	return &MintError{Message: scrub(err.Error())}
}

// NewMint returns a Mint that sends TokenRequests through c, a client for the
// core v1 group, and gives each up after timeout. It leaves ServerTime zero: an
// answer may be wrong in all its times together, so wrap the client's transport
// in HearServer, which asks the header of every answer.
func NewMint(c rest.Interface, timeout time.Duration) Mint {
	return func(ctx context.Context, r Request) (Minted, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		var answer authenticationv1.TokenRequest
		// MaxRetries(0): the client's own retries would be sent behind the back of the outage rule.
		err := c.Post().Namespace(r.Namespace).Resource("serviceaccounts").Name(r.ServiceAccount).SubResource("token").
			MaxRetries(0).Body(tokenRequest(r)).Do(ctx).Into(&answer)
		if err != nil {
			return Minted{}, clientError(ctx, err)
		}
		return minted(r, &answer)
	}
}

// tokenRequest is the body that the kubelet sends (pkg/volume/projected/projected.go).
func tokenRequest(r Request) *authenticationv1.TokenRequest {
	t := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &r.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: r.PodName, UID: r.PodUID,
		},
	}}
	if r.Audience != "" {
		t.Spec.Audiences = []string{r.Audience}
	}
	return t
}

// clientError describes a failed call. Only a Status that the server composed
// is quoted; other bodies may hold anything.
func clientError(ctx context.Context, err error) *MintError {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		s := status.Status()
		e := &MintError{Code: int(s.Code), Message: scrub(s.Message)}
		if s.Details != nil {
			e.RetryAfter = time.Duration(s.Details.RetryAfterSeconds) * time.Second
		}
		if apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) {
			e.Message = "an answer that is no Status of an API server" // client-go would quote it
		}
		return e
	}
	if ctx.Err() != nil {
		return &MintError{Message: "no answer: " + ctx.Err().Error()}
	}
	return &MintError{Message: "no usable answer: " + scrub(err.Error())}
}

// minted takes the token out of an answer and refuses what no reader could use.
func minted(r Request, answer *authenticationv1.TokenRequest) (Minted, error) {
	m := Minted{
		Token:    NewToken(answer.Status.Token),
		Lifetime: answeredLifetime(answer),
	}
	return m, m.check(r)
}

// answeredLifetime believes the answer, not the wish: the server clamps, and
// the JWT's own exp may be a year later.
func answeredLifetime(answer *authenticationv1.TokenRequest) rotation.Lifetime {
	l := rotation.Lifetime{Expires: answer.Status.ExpirationTimestamp.Time}
	if s := answer.Spec.ExpirationSeconds; s != nil {
		l.Issued = l.Expires.Add(-time.Duration(*s) * time.Second)
	}
	return l
}

// unusable is the Code of a MintError for an answer that said yes but held no
// token to publish: a failure of this token alone.
const unusable = http.StatusCreated

// refuse is the failure of a request whose answer holds no token to publish.
func refuse(why string) error {
	return &MintError{Code: unusable, Message: "unusable answer: " + why}
}

// maxTTL is twice the longest lifetime that may be asked for (2^32 s).
const maxTTL = 1 << 33 * time.Second

// maxToken bounds what is taken for a token, in bytes: far above any real one,
// below what fits a file or an HTTP header.
const maxToken = 1 << 20

// check refuses an answer that must not replace a token on disk.
func (m *Minted) check(r Request) error {
	token := m.Token.reveal()
	if m.Token.empty() || len(token) > maxToken || bytes.ContainsAny(token, " \t\r\n\x00") {
		return refuse("no token in it")
	}
	if claims, err := ParseClaims(token); err == nil {
		if err := claims.fits(r); err != nil {
			return refuse(err.Error())
		}
		m.AccountUID = claims.AccountUID
		if claims.Lifetime.Expires.Before(m.Lifetime.Expires) {
			m.Lifetime.Expires = claims.Lifetime.Expires
		}
		if m.Lifetime.Issued.IsZero() {
			m.Lifetime.Issued = claims.Lifetime.Issued
		}
	}
	if m.Lifetime.Issued.IsZero() || m.Lifetime.Expires.Before(time.Unix(0, 0)) || m.Lifetime.TTL() <= 0 || m.Lifetime.TTL() > maxTTL {
		return refuse("no sensible lifetime in it")
	}
	return nil
}

// untimely refuses a token that no reader could use now, by the server's time.
func (m *Minted) untimely(now time.Time) error {
	switch {
	case m.Lifetime.Expired(now):
		return refuse("the token has expired")
	case m.Lifetime.Issued.After(now.Add(tokenLeeway)):
		return refuse("the token is not valid yet")
	}
	return nil
}

// HearServer wraps a transport and reports, for every answer, the server's
// time in its Date header and the local times around the request.
func HearServer(rt http.RoundTripper, clock rotation.Clock, hear func(server time.Time, sent, received rotation.Time)) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		sent := clock()
		resp, err := rt.RoundTrip(req)
		if err == nil {
			if date, perr := http.ParseTime(resp.Header.Get("Date")); perr == nil {
				hear(date, sent, clock())
			}
		}
		return resp, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
