package projector

import "fmt"

// Token is a bearer token. It prints, formats and marshals as "[token]"; only
// the publisher can read it. The zero value is no token.
//
// The bytes are behind a func, because package fmt asks no method of the
// unexported fields of a struct that somebody prints, but cannot look into one.
type Token struct{ secret func() []byte }

const redacted = "[token]"

// NewToken wraps a bearer token. The caller keeps no copy.
func NewToken(s string) Token {
	b := []byte(s)
	return Token{secret: func() []byte { return b }}
}

// String hides the token.
func (Token) String() string { return redacted }

// Format hides the token from every verb.
func (Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// MarshalText hides the token from encoders.
func (Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (t Token) empty() bool { return len(t.reveal()) == 0 }

// reveal returns the token itself, for the publisher; the caller must not change it.
func (t Token) reveal() []byte {
	if t.secret == nil {
		return nil
	}
	return t.secret()
}
