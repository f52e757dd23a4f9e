package daemontest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Secrets are what must be in nothing that a daemon says, or leaves behind outside of volumes. The zero value is none.
type Secrets struct {
	marks map[string]int // pieces of each secret in each form, all of window bytes, and whose they are
	n     int
}

// window is how many bytes tell a secret: of random text, 96 bits; shorter secrets are not looked for.
const window = 16

// Add adds a secret: a token, a password, a key in PEM.
func (s *Secrets) Add(secret string) {
	if s.marks == nil {
		s.marks = make(map[string]int)
	}
	s.n++
	for _, part := range parts(secret) {
		for _, form := range forms(part) {
			for _, at := range []int{0, (len(form) - window) / 2, len(form) - window} {
				s.marks[form[at:at+window]] = s.n
			}
		}
	}
}

// In returns how many of the secrets show in a text, or parts of them, and what stands before the first in its line.
func (s *Secrets) In(text string) (n int, where string) {
	found := make(map[int]bool)
	for at := 0; at+window <= len(text); at++ {
		which, ok := s.marks[text[at:at+window]]
		if !ok || found[which] {
			continue
		}
		if found[which] = true; len(found) == 1 {
			where = text[strings.LastIndexByte(text[:at], '\n')+1 : at]
			where = where[:strings.LastIndexAny(where, ` "=:[`)+1] // what comes then may be its beginning
		}
	}
	return len(found), where
}

// parts are what a secret cannot be used without: of a JWT the payload and the signature, but not the header, which all have in
// common, and of a PEM block its lines.
func parts(secret string) (out []string) {
	parts := strings.FieldsFunc(secret, func(r rune) bool { return r == '.' || r == '\n' })
	if strings.HasPrefix(secret, "eyJ") && len(parts) > 1 {
		parts = parts[1:]
	}
	for _, part := range parts {
		if len(part) >= window && !strings.HasPrefix(part, "-----") {
			out = append(out, part)
		}
	}
	return out
}

// forms are how a text may look after it went through an encoder. URLs and JSON leave it as it is.
func forms(part string) []string {
	out := []string{
		part, hex.EncodeToString([]byte(part)), strings.ToUpper(hex.EncodeToString([]byte(part))),
		fmt.Sprintf("% x", part), strings.Trim(fmt.Sprint([]byte(part)), "[]"), strings.Join(strings.Fields(strings.Trim(fmt.Sprint([]byte(part)), "[]")), ","),
	}
	for before := range 3 { // bytes that come before it in the same triple
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			encoded := encoding.EncodeToString([]byte("  "[:before] + part))
			encoded = encoded[[]int{0, 2, 3}[before] : len(encoded)-4] // what its neighbours do not change
			if len(encoded) >= window {
				out = append(out, encoded)
			}
		}
	}
	return out
}
