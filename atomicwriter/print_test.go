package atomicwriter

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

// TestContentIsNotPrinted: neither of a File nor of an Entry, alone or inside of something. A plain struct is: the check is
// tried on it first.
func TestContentIsNotPrinted(t *testing.T) {
	type plain struct {
		Path string
		Data []byte
	}
	data := []byte("q7wZ0secretK9")
	prints := func(v any) (where []string) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "% X", "%d"} {
			if text := strings.ToLower(fmt.Sprintf(verb, v)); strings.Contains(text, "secret") || strings.Contains(text, "736563726574") ||
				strings.Contains(text, "115 101 99") || strings.Contains(text, "0x73, 0x65") || strings.Contains(text, "73 65 63") {
				where = append(where, verb)
			}
		}
		if text, _ := json.Marshal(v); strings.Contains(string(text), "cTd3WjBz") {
			where = append(where, "JSON")
		}
		return where
	}
	for _, v := range []any{plain{"a", data}, []plain{{"a", data}}} {
		if where := prints(v); len(where) < 9 {
			t.Fatalf("of plain content only %v show it", where)
		}
	}
	f, e := File{Path: "a/b", Data: data, Mode: 0o640}, Entry{Path: "a/b", Data: data, Mode: fs.FileMode(0o640)}
	for _, v := range []any{f, &f, []File{f}, map[string]File{"k": f}, e, &e, []Entry{e}, Version{Name: "v", Files: []Entry{e}}, &Version{Files: []Entry{e}}} {
		if where := prints(v); len(where) > 0 {
			t.Errorf("%T prints its content with %v", v, where)
		}
	}
	for _, text := range []string{fmt.Sprint(f), fmt.Sprintf("%+v", e)} {
		if text != `"a/b" (13 bytes, -rw-r-----)` {
			t.Errorf("%s", text)
		}
	}
	f.Keep = &[32]byte{}
	if text := fmt.Sprint([]File{f}); text != `["a/b" (kept, -rw-r-----)]` {
		t.Errorf("%s", text)
	}
}
