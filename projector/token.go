package projector

import (
	"fmt"
	"log/slog"
)

// Token is a bearer token. It prints, formats, marshals and logs as "[token]"; only
// the publisher can read it. It cannot be unmarshalled: NewToken makes one. The
// zero value is no token.
//
// The bytes are behind a func, because what prints or encodes by reflection,
// package fmt first, asks no method of the unexported fields of a struct, but
// cannot look into a func.
type Token struct{ secret func() []byte }

const redacted = "[token]"

// NewToken wraps a bearer token. The caller keeps no copy.
func NewToken(s string) Token {
	b := []byte(s)
	return Token{secret: func() []byte { return b }}
}

// String hides the token.
func (Token) String() string { return redacted }

// GoString hides the token.
func (Token) GoString() string { return redacted }

// Format hides the token from every verb.
func (Token) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// MarshalText hides the token from encoders, be it as a map's key.
func (Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON hides the token.
func (Token) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// GobEncode hides the token.
func (Token) GobEncode() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the token.
func (Token) LogValue() slog.Value { return slog.StringValue(redacted) }

func (t Token) empty() bool { return len(t.reveal()) == 0 }

// reveal returns the token itself, for the publisher; the caller must not change it.
func (t Token) reveal() []byte {
	if t.secret == nil {
		return nil
	}
	return t.secret()
}
