package projector

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// shows reports whether any distinctive part of a JWT is in a text, also as base64.
func shows(text, jwt string) bool {
	parts := strings.Split(jwt, ".")
	for _, part := range append(parts, base64.StdEncoding.EncodeToString([]byte(jwt))) {
		if strings.Contains(text, part[:12]) || strings.Contains(text, part[len(part)-12:]) {
			return true
		}
	}
	return false
}

// TestScrub: no credential is left of a text, wherever it stands in it. The check is tried first on the text itself.
func TestScrub(t *testing.T) {
	jwt := altered(nil)
	parts := strings.Split(jwt, ".")
	for name, text := range map[string]string{
		"alone": jwt, "quoted": `Bearer "` + jwt + `" refused`, "in a URL": "https://h/?token=" + jwt + "&x=1",
		"twice": jwt + " " + jwt, "unsigned": parts[0] + "." + parts[1] + ".", "two parts": parts[0] + "." + parts[1],
		"header": "Authorization: Bearer " + jwt, "JSON": `{"token":"` + jwt + `"}`, "its end": parts[1] + "." + parts[2],
		"claims": parts[1], "base64": base64.StdEncoding.EncodeToString([]byte(jwt)), "between lines": "denied:\n" + jwt + "\nsorry",
		"at the cut": strings.Repeat("x ", maxMessage/2-60) + jwt, "at the end of what is looked at": strings.Repeat("x ", maxScanned/2-60) + jwt,
	} {
		if !shows(text, jwt) {
			t.Fatalf("%s: the check sees nothing in the plain text", name)
		}
		for _, got := range []string{scrub(text), Scrub(text)} {
			if shows(got, jwt) || !strings.Contains(got, redacted) && len(text) < maxMessage {
				t.Errorf("%s: %s", name, got)
			}
			if again := Scrub(got); again != got && len(got) <= maxMessage {
				t.Errorf("%s: %q is scrubbed to %q", name, got, again)
			}
		}
	}
	for text, want := range map[string]string{
		"Authorization: Bearer s3cr3t-0paque/t0ken+x=": "Authorization: Bearer [token]",
		"bearer%20abcdefghijklmnop&x":                  "bearer%20[token]&x",
		"basic YWRtaW46aHVudGVyMg==":                   "basic [token]",
	} {
		if got := Scrub(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}

// TestScrubLeaves: what is no credential stays as it is, and can be read.
func TestScrubLeaves(t *testing.T) {
	for _, text := range []string{
		"", "context deadline exceeded", "invalid bearer token", "Müller – 日本語",
		`Post "https://10.0.0.1:6443/api/v1/namespaces/default/serviceaccounts/default/token": dial tcp 10.0.0.1:6443: connect: connection refused`,
		`serviceaccounts "builder-service-account.v1" not found in kubernetes.default.svc.cluster.local`,
		"dial tcp: lookup a-very-long-cluster-name-0.control-plane-of-that-cluster.example.com: no such host",
		"/run/token-projector/pods/0c8a2a1e-4f53-4d6d-9c55-2d4f0f6f0a11/volumes/kubernetes.io~projected/vault/..2026_11_22_10_15_04.12345678901234567890",
	} {
		if got := Scrub(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// TestScrubBounds: a text of any length and of any bytes becomes a short one that a terminal can show.
func TestScrubBounds(t *testing.T) {
	for name, text := range map[string]string{
		"long": strings.Repeat("a ", 1<<20), "wide": strings.Repeat("é", 1<<20), "escapes": "\x1b[2J\x1b]0;title\a\r\n\tx\u202edenied\u2028\u200b", "bytes": "\xff\xfe\x00\xc3",
	} {
		for bound, got := range map[int]string{maxMessage: scrub(text), maxText: Scrub(text)} {
			if len(got) > bound+len("…") || !utf8.ValidString(got) || strings.IndexFunc(got, unprintable) >= 0 {
				t.Errorf("%s: %d bytes: %.80q", name, len(got), got)
			}
		}
	}
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// FuzzScrub: whatever a text is, nothing is left of it that looks like a credential.
func FuzzScrub(f *testing.F) {
	for _, text := range []string{"", altered(nil), "Bearer " + altered(nil), "basic+YWRtaW46aHVudGVyMg==", "bearer%20abcdefghijklmnop", "bearer abcdefghijklmnop", "\tbearer\tabcdefghijklmnop"} {
		f.Add(text)
	}
	left := func(text string) bool {
		return authorized.MatchString(text) || slices.ContainsFunc(credential.FindAllString(text, -1), func(found string) bool { return strings.ToLower(found) != found })
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, planted := range []string{text + " " + altered(nil), text + " bearer abcdefghijklmnop"} {
			if !left(strings.Map(printable, planted)) {
				t.Fatalf("nothing is seen in %q", planted)
			}
			if got := Scrub(planted); left(got) {
				t.Errorf("left of %q: %q", planted, got)
			}
		}
		if got := Scrub(text); left(got) {
			t.Errorf("left of %q: %q", text, got)
		}
	})
}

func BenchmarkScrub(b *testing.B) {
	for _, text := range []string{"a-pod-5f7d8c9b6-x2x4z", `pods "web" is forbidden: User "system:node:a" cannot get resource "pods" in API group "" in the namespace "demo"`} {
		b.Run(strings.Fields(text)[0], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Scrub(text)
			}
		})
	}
}
