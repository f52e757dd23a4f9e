package cases

import (
	"encoding/json"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
)

const signatureGroup = "Signature and claims"

// signatures: what is in a token, and who signed it.
func signatures() []Case {
	var out []Case
	add := func(name string, flags *Flags, run func(*World)) {
		out = append(out, Case{Group: signatureGroup, Name: name, Flags: flags, Run: run})
	}
	add("RS256 of an RSA key; the header is alg and kid, and nothing else", Usual, func(w *World) { w.wantHeader(jose.RS256) })
	add("ES256 of a P-256 key; the first key signs", Migrated, func(w *World) { w.wantHeader(jose.ES256) })
	add("the first issuer issues", Migrated, func(w *World) {
		w.wantEqual("iss", w.claimsOf(w.token("default", tokenRequest()))["iss"], any(Migrated.Issuers[0]))
	})
	add("the claims of a token that is bound to nothing", Usual, func(w *World) {
		w.wantClaims(tokenRequest("vault", "nomad"), []any{"vault", "nomad"}, nil)
	})
	add("aud is an array, also of one", Usual, func(w *World) { w.wantClaims(tokenRequest("vault"), []any{"vault"}, nil) })
	add("the claims of a pod on a node", Usual, func(w *World) {
		node := w.createNode("a")
		pod := w.createPod(w.newPod("web", node.Name))
		w.wantClaims(bind(tokenRequest("vault"), "Pod", "web", ""), []any{"vault"}, claims{
			"pod": boundTo(pod.Name, string(pod.UID)), "node": boundTo(node.Name, string(node.UID)),
		})
	})
	add("the claims of a pod on a node that does not exist: its name alone", Usual, func(w *World) {
		pod := w.createPod(w.newPod("web", "gone"))
		w.wantClaims(bind(tokenRequest("vault"), "Pod", "web", ""), []any{"vault"}, claims{
			"pod": boundTo(pod.Name, string(pod.UID)), "node": map[string]any{"name": "gone"},
		})
	})
	add("the claims of a pod on no node: none of a node", Usual, func(w *World) {
		pod := w.createPod(w.newPod("web", ""))
		w.wantClaims(bind(tokenRequest("vault"), "Pod", "web", ""), []any{"vault"}, claims{"pod": boundTo(pod.Name, string(pod.UID))})
	})
	add("the payload's keys are sorted", Usual, func(w *World) {
		_, payload := w.parts(w.token("default", bind(tokenRequest(), "Pod", w.createPod(w.newPod("web", "gone")).Name, "")))
		var c claims // a map, which is written in order
		w.must(json.Unmarshal(payload, &c))
		if sorted, err := json.Marshal(c); err != nil || string(sorted) != string(payload) {
			w.Errorf("they are not: %v", err)
		}
	})
	add("two tokens of one request differ by their jti", Usual, func(w *World) {
		if w.claimsOf(w.token("default", tokenRequest()))["jti"] == w.claimsOf(w.token("default", tokenRequest()))["jti"] {
			w.Errorf("they have the same")
		}
	})
	return out
}

func boundTo(name, uid string) map[string]any { return map[string]any{"name": name, "uid": uid} }

// wantHeader checks the header, and the signature by the server's key.
func (w *World) wantHeader(alg jose.SignatureAlgorithm) {
	token := w.token("default", tokenRequest())
	kid, err := keyID(w.Key(alg).Public())
	w.must(err)
	raw, payload := w.parts(token)
	var header map[string]any
	w.must(json.Unmarshal(raw, &header))
	w.wantEqual("header", header, map[string]any{"alg": string(alg), "kid": kid})
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{alg})
	w.must(err)
	verified, err := jws.Verify(w.Key(alg).Public())
	if err != nil || string(verified) != string(payload) {
		w.Errorf("the signature: %v", err)
	}
}

// wantClaims wants exactly these, of an account "default" and 600 seconds; bound are those of "kubernetes.io" beside the account.
func (w *World) wantClaims(tr *authenticationv1.TokenRequest, audiences []any, bound claims) {
	got := w.claimsOf(w.token("default", tr))
	iat, _ := got["iat"].(float64)
	if jti, _ := got["jti"].(string); len(jti) != 36 {
		w.Errorf("jti %q is no UUID", jti)
	}
	private := map[string]any{"namespace": w.NS, "serviceaccount": boundTo("default", string(w.account("default").UID))}
	for name, value := range bound {
		private[name] = value
	}
	delete(got, "jti")
	w.wantEqual("claims", got, claims{
		"aud": audiences, "iss": ClusterIssuer, "sub": "system:serviceaccount:" + w.NS + ":default",
		"iat": iat, "nbf": iat, "exp": iat + 600, "kubernetes.io": private,
	})
}
