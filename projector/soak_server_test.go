package projector

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/token-projector/token-projector/rotation"
)

// number is a hash, for choices that must not depend on the order of anything else.
func number(parts ...any) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return h.Sum64()
}

// answerTo is what the server answers now.
func (w *world) answerTo(q Request, fault happening) (Minted, error) {
	if code, err := strconv.Atoi(fault.Kind); err == nil {
		return Minted{}, &MintError{Code: code, RetryAfter: time.Duration(fault.N) * time.Second, Message: "refused"}
	}
	issued, asked := w.server().Truncate(time.Second), q
	ttl := min(time.Duration(q.ExpirationSeconds)*time.Second, w.history.Longest)
	switch fault.Kind {
	case "for another pod":
		asked.PodUID = "another"
	case "for another audience":
		if q.Audience != "" { // else any will do
			asked.Audience = "another"
		}
	case "expired":
		issued = issued.Add(-ttl)
	case "not yet valid":
		issued = issued.Add(time.Hour)
	}
	life := rotation.Lifetime{Issued: issued, Expires: issued.Add(ttl)}
	claims := claimsFor(asked, issued, ttl)
	claims["jti"] = fmt.Sprint(number(q, w.at, "jti")) // the same history, the same tokens
	if q.ExpirationSeconds == 3607 {
		claims["exp"] = issued.Add(365 * 24 * time.Hour).Unix()
		claims["kubernetes.io"].(map[string]any)["warnafter"] = issued.Add(ttl).Unix()
	}
	token := sign(claims)
	m := Minted{Token: NewToken(token), Lifetime: life}
	if fault.Kind == "empty" {
		m.Token = Token{}
	}
	if asked != q || fault.Kind == "empty" {
		return m, m.check(q)
	}
	w.minted[token] = issue{q, life}
	return m, nil
}

// matches reports whether a fault of the server, or of tokens, is one for this request.
func (f *happening) matches(q *Request) bool {
	switch f.What {
	case "server", "tokens":
		return true
	case "audience":
		return q.Audience == "vault"
	case "account":
		return q.ServiceAccount == "default"
	case "pod fails":
		return q.PodUID == uid(f.Pod)
	}
	return false
}

// fault is the one that a request meets now; the zero value is none.
func (w *world) fault(q Request) happening {
	for _, f := range w.faults {
		if f.matches(&q) && w.at < f.At+f.For {
			return f
		}
	}
	return happening{}
}

func (w *world) diskFault(j job) happening {
	for _, f := range w.faults {
		if f.What == "disk" && w.at < f.At+f.For && (f.Pod < 0 || jobPod(j) == uid(f.Pod)) {
			return f
		}
	}
	return happening{}
}

func jobPod(j job) types.UID {
	if v := jobVolume(j); v != nil {
		return v.key.PodUID
	}
	return types.UID(j.remove.uid)
}
