package daemontest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

const (
	someToken = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImtleSJ9.eyJhdWQiOlsidmF1bHQiXSwiZXhwIjoxNzY0MTk1NjAwfQ.MEUCIQDm4f1xkY0hR8c2Z7vT3bL9pQ5sW6nE"
	someKey   = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBOyNM0aW8q1hYk2Q7mTz3cV5rL9sD4fG6jH8kP0xZnBoAoGCCqGSM49\nAwEHoUQDQgAEi1s\n-----END EC PRIVATE KEY-----\n"
)

// TestSecretsShow: whole or in part, in whatever form and wherever in a text.
func TestSecretsShow(t *testing.T) {
	var s Secrets
	for _, secret := range []string{someToken, someKey, "correct-horse-battery-staple"} {
		s.Add(secret)
		half := secret[len(secret)/3:]
		inJSON, _ := json.Marshal(map[string]string{"k": secret})
		for name, text := range map[string]string{
			"plain": secret, "half": half, "JSON": string(inJSON), "URL": "https://h/?t=" + url.QueryEscape(secret),
			"hex": hex.EncodeToString([]byte(secret)), "HEX": fmt.Sprintf("%X", secret), "spaced": fmt.Sprintf("% x", secret),
			"numbers": fmt.Sprint([]byte(secret)), "base64": base64.StdEncoding.EncodeToString([]byte(secret)),
			"base64 of more": base64.StdEncoding.EncodeToString([]byte("Bearer " + secret + " refused")), "base64url of more": base64.URLEncoding.EncodeToString([]byte("x" + secret)),
		} {
			n, where := s.In("one line\n{\"msg\":\"" + text + "\"}\nanother")
			if n != 1 || secret != someKey && !strings.HasPrefix(where, `{"msg":"`) {
				t.Errorf("%s of a secret of %d bytes: %d found, after %q", name, len(secret), n, where)
			}
			if m, _ := s.In(where); m != 0 {
				t.Errorf("%s of a secret of %d bytes is in what tells of it", name, len(secret))
			}
		}
	}
	if n, where := s.In("nothing of it: " + strings.Split(someToken, ".")[0] + " and " + strings.Split(someKey, "\n")[0]); n != 0 || where != "" {
		t.Errorf("%d secrets in a text without any: %q", n, where)
	}
	if n, _ := s.In(someToken + someKey); n != 2 {
		t.Errorf("%d secrets, want 2", n)
	}
}
