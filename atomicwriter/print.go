package atomicwriter

import "fmt"

// The content of a File or Entry may be a token or a key: it is not printed, marshalled or logged.

// String names the file and tells its size.
func (f File) String() string {
	if f.Keep != nil {
		return fmt.Sprintf("%q (kept, %v)", f.Path, f.Mode)
	}
	return fmt.Sprintf("%q (%d bytes, %v)", f.Path, len(f.Data), f.Mode)
}

// Format prints what String says, whatever the verb.
func (f File) Format(s fmt.State, _ rune) { fmt.Fprint(s, f.String()) }

// MarshalText is String, for encoders.
func (f File) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// String names the file and tells its size.
func (e Entry) String() string { return fmt.Sprintf("%q (%d bytes, %v)", e.Path, len(e.Data), e.Mode) }

// Format prints what String says, whatever the verb.
func (e Entry) Format(s fmt.State, _ rune) { fmt.Fprint(s, e.String()) }

// MarshalText is String, for encoders.
func (e Entry) MarshalText() ([]byte, error) { return []byte(e.String()), nil }
