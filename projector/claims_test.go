package projector

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/token-projector/token-projector/rotation"
)

var issuedAt = time.Unix(1_795_000_000, 0).UTC()

// request is what the tests' tokens answer.
var request = Request{
	Namespace: "default", ServiceAccount: "default", PodName: "pod-1", PodUID: "uid-1",
	Audience: "vault", ExpirationSeconds: 600,
}

// altered is a good token of ten minutes with some claims set, or taken out (nil).
func altered(changes map[string]any) string {
	claims := claimsFor(request, issuedAt, 10*time.Minute)
	for k, v := range changes {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	return sign(claims)
}

// warning is the private claim with warnafter.
func warning(warnafter any) map[string]any {
	return map[string]any{"kubernetes.io": map[string]any{
		"namespace": "default", "pod": map[string]any{"name": "pod-1", "uid": "uid-1"}, "warnafter": warnafter,
	}}
}

func TestParseClaims(t *testing.T) {
	good := Claims{
		Subject: "system:serviceaccount:default:default", Audience: []string{"vault"},
		Namespace: "default", PodName: "pod-1", PodUID: "uid-1", NotBefore: issuedAt,
		Lifetime: rotation.Lifetime{Issued: issuedAt, Expires: issuedAt.Add(10 * time.Minute)},
	}
	with := func(change func(*Claims)) Claims {
		c := good
		change(&c)
		return c
	}
	unbound := with(func(c *Claims) { c.Namespace, c.PodName, c.PodUID = "", "", "" })
	year := map[string]any{"exp": issuedAt.Unix() + 31536000}
	extended := warning(issuedAt.Unix() + 3607)
	extended["exp"] = year["exp"]
	account := func(value any) map[string]any {
		return map[string]any{"kubernetes.io": map[string]any{
			"namespace": "default", "pod": map[string]any{"name": "pod-1", "uid": "uid-1"}, "serviceaccount": value,
		}}
	}
	for name, tt := range map[string]struct {
		changes map[string]any
		want    Claims
	}{
		"good":              {nil, good},
		"audience a string": {map[string]any{"aud": "vault"}, good},
		"two audiences":     {map[string]any{"aud": []string{"a", "b"}}, with(func(c *Claims) { c.Audience = []string{"a", "b"} })},
		"no audience":       {map[string]any{"aud": nil}, with(func(c *Claims) { c.Audience = nil })},
		"empty audience":    {map[string]any{"aud": []string{}}, with(func(c *Claims) { c.Audience = []string{} })},
		"no subject":        {map[string]any{"sub": nil}, with(func(c *Claims) { c.Subject = "" })},
		"no pod":            {map[string]any{"kubernetes.io": nil}, unbound},
		"null pod":          {map[string]any{"kubernetes.io": map[string]any{"pod": nil}}, unbound},
		"account":           {account(map[string]any{"name": "default", "uid": "account-1"}), with(func(c *Claims) { c.AccountUID = "account-1" })},
		"null account":      {account(nil), good},
		"no nbf":            {map[string]any{"nbf": nil}, with(func(c *Claims) { c.NotBefore = time.Time{} })},
		"fractions":         {map[string]any{"exp": float64(issuedAt.Unix()) + 600.75}, good},
		"extended":          {extended, with(func(c *Claims) { c.Lifetime.Expires = issuedAt.Add(3607 * time.Second) })},
		"warnafter late":    {warning(issuedAt.Unix() + 900), good},
		"warnafter null":    {warning(nil), good},
		"a year":            {year, with(func(c *Claims) { c.Lifetime.Expires = issuedAt.Add(8760 * time.Hour) })},
		"unknown claims":    {map[string]any{"azp": []int{1}, "jti": 5 == 6}, good},
	} {
		if name == "unknown claims" {
			tt.changes["jti"] = "x"
		}
		got, err := ParseClaims([]byte(altered(tt.changes)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// planted stands in whatever the parser may want to quote.
const planted = "pLaNtEd0s3cret"

// leaks reports whether a text holds the planted secret, also as it is encoded.
func leaks(text string) bool {
	encoded := base64.RawURLEncoding.EncodeToString([]byte(planted + planted + planted))
	return strings.Contains(text, planted) || strings.Contains(text, encoded[12:24])
}

// TestParseClaimsRefuses: no input makes an error that quotes it.
func TestParseClaimsRefuses(t *testing.T) {
	if !leaks(fmt.Errorf("parse %q", "x"+planted).Error()) || !leaks(base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat(planted, 9)))) {
		t.Fatal("a planted leak is not caught")
	}
	raw := func(header, payload string) string {
		encode := base64.RawURLEncoding.EncodeToString
		return encode([]byte(header)) + "." + encode([]byte(payload)) + "." + encode(make([]byte, 64))
	}
	for name, text := range map[string]string{
		"empty":             "",
		"opaque":            planted,
		"two parts":         planted + "." + planted,
		"three parts":       planted + "." + planted + "." + planted,
		"five parts":        strings.Repeat(planted+".", 4) + planted,
		"header not JSON":   raw(planted, `{}`),
		"header JSON":       raw(`{"alg":"`+planted+`"}`, `{}`),
		"no algorithm":      raw(`{"kid":"`+planted+`"}`, `{}`),
		"algorithm none":    raw(`{"alg":"none"}`, `{"sub":"`+planted+`"}`),
		"HS256":             raw(`{"alg":"HS256"}`, `{"sub":"`+planted+`"}`),
		"critical header":   raw(`{"alg":"ES256","crit":["`+planted+`"]}`, `{}`),
		"payload not JSON":  raw(`{"alg":"ES256"}`, planted),
		"payload an array":  raw(`{"alg":"ES256"}`, `["`+planted+`"]`),
		"payload null":      raw(`{"alg":"ES256"}`, `null`),
		"empty claims":      raw(`{"alg":"ES256"}`, `{}`),
		"JSON serialised":   `{"payload":"` + planted + `","signatures":[]}`,
		"exp a string":      altered(map[string]any{"exp": planted}),
		"aud an object":     altered(map[string]any{"aud": map[string]any{planted: 1}}),
		"aud numbers":       altered(map[string]any{"aud": []any{1, planted}}),
		"private a string":  altered(map[string]any{"kubernetes.io": planted}),
		"uid a number":      altered(map[string]any{"kubernetes.io": map[string]any{"pod": map[string]any{"uid": 1}}, "sub": planted}),
		"no iat":            altered(map[string]any{"iat": nil, "sub": planted}),
		"no exp":            altered(map[string]any{"exp": nil, "sub": planted}),
		"exp at iat":        altered(map[string]any{"exp": issuedAt.Unix(), "sub": planted}),
		"exp before iat":    altered(map[string]any{"exp": 5, "sub": planted}),
		"exp in 31 million": altered(map[string]any{"exp": int64(1e15), "sub": planted}),
		"iat long ago":      altered(map[string]any{"iat": int64(-1e15), "sub": planted}),
		"warnafter at iat":  altered(warning(issuedAt.Unix())),
		"garbage":           string([]byte{0xff, 0, '.', 0xfe, '.', 1}) + planted,
		"newline":           altered(map[string]any{"sub": planted}) + "\n",
		"huge":              strings.Repeat(planted, 100_000),
		"huge token":        altered(map[string]any{"aud": strings.Repeat(planted, 100_000)}),
		"huge payload":      raw(`{"alg":"ES256"}`, `{"sub":"`+strings.Repeat(planted, 100_000)),
	} {
		c, err := ParseClaims([]byte(text))
		if name == "newline" && err == nil {
			continue // taking it is harmless: what is on disk is compared by its hash
		}
		if err == nil {
			t.Errorf("%s: accepted as a token of %.40q", name, c.Subject)
			continue
		}
		for e := err; e != nil; e = errors.Unwrap(e) {
			if text := fmt.Sprintf("%v %+v %#v", e, e, e); leaks(text) {
				t.Errorf("%s: the error quotes its input: %.300s", name, text)
			}
		}
	}
}

func TestClaimsFit(t *testing.T) {
	for name, tt := range map[string]struct {
		changes map[string]any
		request func(*Request)
		says    string
	}{
		"as asked":             {nil, nil, ""},
		"any audience will do": {map[string]any{"aud": []string{"a", "b"}}, func(r *Request) { r.Audience = "" }, ""},
		"no audience at all":   {map[string]any{"aud": nil}, func(r *Request) { r.Audience = "" }, ""},
		"another account":      {nil, func(r *Request) { r.ServiceAccount = "builder" }, "account"},
		"another namespace":    {nil, func(r *Request) { r.Namespace = "kube-system" }, "account"},
		"another pod":          {nil, func(r *Request) { r.PodUID = "uid-2" }, "pod"},
		"no pod":               {map[string]any{"kubernetes.io": nil}, nil, "pod"},
		"another audience":     {nil, func(r *Request) { r.Audience = "vault2" }, "audience"},
		"an audience too many": {map[string]any{"aud": []string{"vault", "b"}}, nil, "audience"},
		"no audience":          {map[string]any{"aud": nil}, nil, "audience"},
	} {
		c, err := ParseClaims([]byte(altered(tt.changes)))
		if err != nil {
			t.Fatal(err)
		}
		r := request
		if tt.request != nil {
			tt.request(&r)
		}
		err = c.fits(r)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzParseClaims: no panic, no quoting, and what is accepted has a life.
func FuzzParseClaims(f *testing.F) {
	f.Add([]byte(altered(nil)))
	f.Add([]byte(altered(map[string]any{"aud": "vault", "exp": 1e18})))
	f.Add([]byte(altered(warning(-1))))
	f.Add([]byte(strings.Repeat("eyJhbGciOiJFUzI1NiJ9.", 3)))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseClaims(text)
		if err != nil {
			if len(text) > 24 && strings.Contains(err.Error(), string(text)) {
				t.Errorf("%q quotes its input", err)
			}
			return
		}
		if c.Lifetime.TTL() <= 0 || c.Lifetime.Due(1, true).After(c.Lifetime.Limit()) {
			t.Errorf("lifetime %+v", c.Lifetime)
		}
	})
}
