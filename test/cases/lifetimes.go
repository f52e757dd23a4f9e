package cases

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// year is how long some tokens live really.
const year = 365 * 24 * 60 * 60

// lifetime is how long a token of the API lives that is asked for with some seconds.
type lifetime struct {
	name      string
	flags     *Flags
	seconds   int64
	ask       func(*World, *authenticationv1.TokenRequest)
	want      int64 // of the answer
	real      int64 // of the token
	warnAfter int64 // 0: the token has none
	warning   string
}

// lifetimes: the default, the maximum, and the year of those that admission injects.
func lifetimes() []Case {
	var out []Case
	for _, l := range []lifetime{
		{"600 seconds", nil, 600, nil, 600, 600, 0, ""},
		{"2^32 seconds", nil, 1 << 32, nil, 1 << 32, 1 << 32, 0, ""},
		{"exactly the maximum", Migrated, 7200, nil, 7200, 7200, 0, ""},
		{"longer than the maximum: shortened, with a warning", Migrated, 7201, nil, 7200, 7200, 0,
			"requested expiration of 7201 seconds shortened to 7200 seconds"},
		{"bound to a pod, 3607 seconds: a year, warnafter at 3607, and the answer does not say so", nil, 3607, toPod, 3607, year, 3607, ""},
		{"the year is not shortened to the maximum", Migrated, 3607, toPod, 3607, year, 3607, ""},
		{"a part of the API's audiences: a year", Migrated, 3607, for3607(ClusterIssuer), 3607, year, 3607, ""},
		{"one foreign audience: no year", nil, 3607, for3607(ClusterIssuer, "vault"), 3607, 3607, 0, ""},
		{"3606 seconds: no year", nil, 3606, toPod, 3606, 3606, 0, ""},
		{"3608 seconds: no year", nil, 3608, toPod, 3608, 3608, 0, ""},
		{"bound to nothing: no year", nil, 3607, nil, 3607, 3607, 0, ""},
		{"bound to a Secret: no year", nil, 3607, toSecret, 3607, 3607, 0, ""},
		{"bound to a node: no year", nil, 3607, toNode, 3607, 3607, 0, ""},
		{"extension switched off: no year", Closed, 3607, toPod, 3607, 3607, 0, ""},
	} {
		out = append(out, Case{Group: tokenRequestGroup, Name: "lifetime: " + l.name, Flags: l.flags, Run: l.run})
	}
	return out
}

func toPod(w *World, tr *authenticationv1.TokenRequest) {
	bind(tr, "Pod", w.createPod(w.newPod("web", "")).Name, "")
}
func toSecret(w *World, tr *authenticationv1.TokenRequest) {
	bind(tr, "Secret", w.createSecret("bound").Name, "")
}
func toNode(w *World, tr *authenticationv1.TokenRequest) {
	bind(tr, "Node", w.createNode("a").Name, "")
}

// for3607 binds to a pod, for audiences.
func for3607(audiences ...string) func(*World, *authenticationv1.TokenRequest) {
	return func(w *World, tr *authenticationv1.TokenRequest) {
		toPod(w, tr)
		tr.Spec.Audiences = audiences
	}
}

func (l lifetime) run(w *World) {
	tr := tokenRequest()
	tr.Spec.ExpirationSeconds = &l.seconds
	if l.ask != nil {
		l.ask(w, tr)
	}
	answer, warnings := w.warned(tr)
	var want []string
	if l.warning != "" {
		want = []string{"299: " + l.warning}
	}
	w.wantEqual("warnings", warnings, want)
	w.wantLifetime(answer, l.want, l.real)
	c := w.claimsOf(answer.Status.Token)
	warnAfter := c.private().second("warnafter")
	if warnAfter != 0 {
		warnAfter -= c.second("iat")
	}
	w.wantEqual("warnafter", warnAfter, l.warnAfter)
}

// wantLifetime compares what the answer and its token say, from now on.
func (w *World) wantLifetime(answer *authenticationv1.TokenRequest, told, real int64) {
	c := w.claimsOf(answer.Status.Token)
	w.wantNear("iat", time.Unix(c.second("iat"), 0))
	w.wantEqual("expirationSeconds", *answer.Spec.ExpirationSeconds, told)
	// The server takes the time twice.
	if end := answer.Status.ExpirationTimestamp.Unix(); end > c.second("iat")+told || end < c.second("iat")+told-1 {
		w.Errorf("expirationTimestamp is %d seconds after the token's beginning, want %d", end-c.second("iat"), told)
	}
	w.wantEqual("the token's seconds", c.second("exp")-c.second("iat"), real)
}

// wantNear wants about the server's time: the machine may be busy.
func (w *World) wantNear(what string, at time.Time) {
	if d := w.Now().Sub(at); d < -time.Minute || d > time.Minute {
		w.Errorf("%s is %v ago", what, d)
	}
}

// warnings are the Warning headers of answers.
type warnings []string

func (ws *warnings) HandleWarningHeaderWithContext(_ context.Context, code int, _, text string) {
	*ws = append(*ws, fmt.Sprintf("%d: %s", code, text))
}

// warned is the answer with its warnings.
func (w *World) warned(tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, []string) {
	var ws warnings
	config := rest.CopyConfig(w.Admin)
	config.WarningHandlerWithContext = &ws
	client, err := kubernetes.NewForConfig(config)
	w.must(err)
	answer, err := client.CoreV1().ServiceAccounts(w.NS).CreateToken(w.Ctx, "default", tr, metav1.CreateOptions{})
	w.must(err)
	return answer, ws
}
