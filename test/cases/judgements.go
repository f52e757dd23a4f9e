package cases

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// good is a token for the API of the account "default", bound to nothing.
func (w *World) good() string { return w.token("default", tokenRequest()) }

const (
	noKey    = "invalid signature, no keys found"
	badCrypt = "go-jose/go-jose: error in cryptographic primitive"
)

// signatureJudgements: whose tokens are accepted.
func signatureJudgements() []judgement {
	return []judgement{
		{"as it was issued: accepted", nil, func(w *World) (string, string) { return w.good(), "" }},
		{"no JWT: refused", nil, func(*World) (string, string) { return "a.b.c", noToken }},
		{"of another issuer: refused, it may be another's", nil, func(w *World) (string, string) {
			return w.resign(w.good(), "iss", "https://elsewhere.example"), noToken
		}},
		{"of an issuer and a key that do not issue any more: accepted", Migrated, func(w *World) (string, string) {
			return w.resign(w.good(), "iss", ClusterIssuer), ""
		}},
		{"with a payload that was changed: refused", nil, func(w *World) (string, string) {
			parts := strings.Split(w.good(), ".")
			parts[1] = strings.Split(w.resign(w.good(), "exp", w.Now().Unix()+7200), ".")[1]
			return strings.Join(parts, "."), because(badCrypt)
		}},
		{"signed by an unknown key: refused", nil, func(w *World) (string, string) { return w.forged("unknown"), because(noKey) }},
		{"signed by another key than it says: refused", Migrated, func(w *World) (string, string) {
			kid, err := keyID(w.Key(jose.ES256).Public())
			w.must(err)
			return w.forged(kid), because(badCrypt)
		}},
		{"that does not say which key: all are tried", Migrated, func(w *World) (string, string) {
			token, err := signed(jose.RS256, w.Key(jose.RS256), w.claimsOf(w.good()))
			w.must(err)
			return token, ""
		}},
		{"not signed: refused", nil, func(w *World) (string, string) {
			none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
			return none + "." + strings.Split(w.good(), ".")[1] + ".", because(badCrypt)
		}},
		{"signed by the public key, as if that were a secret: refused", nil, func(w *World) (string, string) {
			public, err := x509.MarshalPKIXPublicKey(w.Key(jose.RS256).Public())
			w.must(err)
			token, err := signed(jose.HS256, public, w.claimsOf(w.good()))
			w.must(err)
			return token, because(badCrypt)
		}},
	}
}

// forged is a good token of the server's first issuer, with the signature of a key of our own.
func (w *World) forged(kid string) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	token, err := signed(jose.ES256, jose.JSONWebKey{Key: key, KeyID: kid}, w.claimsOf(w.good()))
	w.must(err)
	return token
}

// timeJudgements: the server forgives a minute.
func timeJudgements() []judgement {
	// changed says that one of the token's times is some seconds from now.
	changed := func(claim string, seconds int64, why string) func(*World) (string, string) {
		return func(w *World) (string, string) { return w.resign(w.good(), claim, w.Now().Unix()+seconds), why }
	}
	return []judgement{
		{"50 s after its end: accepted", nil, changed("exp", -50, "")},
		{"more than a minute after its end: refused", nil, changed("exp", -62, because("service account token has expired"))},
		{"that has no end: accepted", nil, func(w *World) (string, string) { return w.resign(w.good(), "exp", nil), "" }},
		{"50 s before its beginning: accepted", nil, changed("nbf", 50, "")},
		{"more than a minute before its beginning: refused", nil, changed("nbf", 120, because("service account token is not valid yet"))},
		{"more than a minute before its issue: refused", nil, changed("iat", 120, because("service account token is issued in the future"))},
		{"past its warnafter: accepted", nil, func(w *World) (string, string) {
			token := w.token("default", bind(tokenRequest(), "Pod", w.createPod(w.newPod("web", "")).Name, ""))
			private := w.claimsOf(token).private().with("warnafter", w.Now().Unix()-1000)
			return w.resign(token, "kubernetes.io", private), ""
		}},
		{"for no audience: accepted, it is the API's", nil, func(w *World) (string, string) { return w.resign(w.good(), "aud", nil), "" }},
		{"for another audience: refused", nil, func(w *World) (string, string) {
			return w.token("default", tokenRequest("vault")),
				because(`token audiences ["vault"] is invalid for the target audiences [%q]`, ClusterIssuer)
		}},
		{"for one of the API's audiences: accepted", Closed, func(w *World) (string, string) {
			return w.token("default", tokenRequest("vault", "api2")), ""
		}},
	}
}

const invalidated = "service account token has been invalidated"

// atOnce deletes without grace.
func atOnce() metav1.DeleteOptions { return metav1.DeleteOptions{GracePeriodSeconds: new(int64)} }

// bindingJudgements: a token ends with what it is bound to.
func bindingJudgements() []judgement { return append(podJudgements(), objectJudgements()...) }

// podJudgements are about its account and its pod.
func podJudgements() []judgement {
	now := atOnce()
	return []judgement{
		{"its account was deleted: refused", nil, func(w *World) (string, string) {
			w.createAccount("brief")
			token := w.token("brief", tokenRequest())
			w.must(w.Client.CoreV1().ServiceAccounts(w.NS).Delete(w.Ctx, "brief", now))
			return token, because(`serviceaccounts "brief" not found`)
		}},
		{"its account was deleted and made again: refused", nil, func(w *World) (string, string) {
			old := w.createAccount("brief")
			token := w.token("brief", tokenRequest())
			w.must(w.Client.CoreV1().ServiceAccounts(w.NS).Delete(w.Ctx, "brief", now))
			return token, because("service account UID (%s) does not match claim (%s)", w.createAccount("brief").UID, old.UID)
		}},
		{"its account terminates: accepted", nil, func(w *World) (string, string) {
			w.terminateAccount("leaving")
			return w.token("leaving", tokenRequest()), ""
		}},
		{"its pod was deleted: refused", nil, func(w *World) (string, string) {
			w.createPod(w.newPod("web", ""))
			token := w.token("default", bind(tokenRequest(), "Pod", "web", ""))
			w.deletePod("web", 0)
			return token, because(invalidated)
		}},
		{"its pod was deleted and made again: refused", nil, func(w *World) (string, string) {
			old := w.createPod(w.newPod("web", ""))
			token := w.token("default", bind(tokenRequest(), "Pod", "web", ""))
			w.deletePod("web", 0)
			return token, because("pod UID (%s) does not match service account pod ref claim (%s)", w.createPod(w.newPod("web", "")).UID, old.UID)
		}},
		{"its pod terminates: accepted", nil, func(w *World) (string, string) {
			w.createPod(w.newPod("web", w.createNode("a").Name))
			w.deletePod("web", 1)
			return w.token("default", bind(tokenRequest(), "Pod", "web", "")), ""
		}},
		{"its pod has ended: accepted", nil, func(w *World) (string, string) {
			w.endPod(w.createPod(w.newPod("web", "")))
			return w.token("default", bind(tokenRequest(), "Pod", "web", "")), ""
		}},
	}
}

// objectJudgements are about a node and a Secret.
func objectJudgements() []judgement {
	now := atOnce()
	return []judgement{
		{"the node of its pod was deleted: accepted", nil, func(w *World) (string, string) {
			node := w.createNode("a").Name
			w.createPod(w.newPod("web", node))
			token := w.token("default", bind(tokenRequest(), "Pod", "web", ""))
			w.must(w.Client.CoreV1().Nodes().Delete(w.Ctx, node, now))
			return token, ""
		}},
		{"the node that it is bound to was deleted: refused", nil, func(w *World) (string, string) {
			node := w.createNode("a").Name
			token := w.token("default", bind(tokenRequest(), "Node", node, ""))
			w.must(w.Client.CoreV1().Nodes().Delete(w.Ctx, node, now))
			return token, because(invalidated)
		}},
		{"the node that it is bound to was deleted and made again: refused", nil, func(w *World) (string, string) {
			old := w.createNode("a")
			token := w.token("default", bind(tokenRequest(), "Node", old.Name, ""))
			w.must(w.Client.CoreV1().Nodes().Delete(w.Ctx, old.Name, now))
			return token, because("node UID (%s) does not match service account node ref claim (%s)", w.createNode("a").UID, old.UID)
		}},
		{"its Secret was deleted: refused", nil, func(w *World) (string, string) {
			w.createSecret("bound")
			token := w.token("default", bind(tokenRequest(), "Secret", "bound", ""))
			w.must(w.Client.CoreV1().Secrets(w.NS).Delete(w.Ctx, "bound", now))
			return token, because(invalidated)
		}},
		{"its Secret was deleted and made again: refused", nil, func(w *World) (string, string) {
			old := w.createSecret("bound")
			token := w.token("default", bind(tokenRequest(), "Secret", "bound", ""))
			w.must(w.Client.CoreV1().Secrets(w.NS).Delete(w.Ctx, "bound", now))
			return token, because("secret UID (%s) does not match service account secret ref claim (%s)", w.createSecret("bound").UID, old.UID)
		}},
	}
}

// endings let time pass: what terminates keeps its tokens for a minute after its deletionTimestamp.
func endings() []Case {
	const over = 62 * time.Second
	return []Case{
		{Group: reviewGroup, Name: "a minute after the grace of its pod: refused", OwnClock: true, Run: func(w *World) {
			w.createPod(w.newPod("web", w.createNode("a").Name))
			w.deletePod("web", 1)
			token := w.token("default", bind(tokenRequest(), "Pod", "web", ""))
			w.must(w.judge(token, ""))
			w.must(w.Pass(w.Ctx, over))
			w.must(w.judge(token, because(invalidated)))
		}},
		{Group: reviewGroup, Name: "a minute after the deletion of an account or a Secret that terminates: refused", OwnClock: true, Run: func(w *World) {
			w.terminateAccount("leaving")
			w.createSecret("bound", finalizer)
			w.must(w.Client.CoreV1().Secrets(w.NS).Delete(w.Ctx, "bound", metav1.DeleteOptions{}))
			ofAccount, ofSecret := w.token("leaving", tokenRequest()), w.token("default", bind(tokenRequest(), "Secret", "bound", ""))
			w.must(w.judge(ofAccount, ""))
			w.must(w.judge(ofSecret, ""))
			w.must(w.Pass(w.Ctx, over))
			w.must(w.judge(ofAccount, because("service account %s/leaving has been deleted", w.NS)))
			w.must(w.judge(ofSecret, because(invalidated)))
		}},
		{
			Group: reviewGroup, Name: "accepted once, its pod deleted: accepted for some seconds more",
			Differs: "the fake remembers no verdict, the real server a good one for 10 s", Run: func(w *World) {
				w.createPod(w.newPod("web", ""))
				token := w.token("default", bind(tokenRequest(), "Pod", "web", ""))
				w.must(w.judge(token, ""))
				w.deletePod("web", 0)
				w.must(w.judge(token, ""))
			},
		},
	}
}
