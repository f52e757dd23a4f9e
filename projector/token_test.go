package projector

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"sigs.k8s.io/yaml"
)

// naked prints: the checks below are tried on it first.
type naked struct{ secret []byte }

func (n naked) String() string               { return string(n.secret) }
func (n naked) Error() string                { return string(n.secret) }
func (n naked) MarshalText() ([]byte, error) { return n.secret, nil }

// carrier has fields that package fmt reads without asking their methods.
type carrier struct {
	plain  naked
	fresh  Token
	behind *Token
	minted Minted
	list   []Token
}

// formatted are the verbs for which package fmt asks a Formatter; for %p and %w
// it never does.
const formatted = "vsqxXTtbcodUeEfFgG"

// printings are the ways in which a value may get into a text.
func printings(v any, verbs string) map[string]string {
	out := map[string]string{}
	for _, verb := range verbs {
		for _, flags := range []string{"", "+", "#", " ", "-40", "08.3"} {
			format := "%" + flags + string(verb)
			out[format] = fmt.Sprintf(format, v)
		}
	}
	out["nested"] = fmt.Sprintf("%v %+v %#v", []any{v}, map[string]any{"k": v}, struct{ V any }{v})
	out["pointer"] = fmt.Sprintf("%v %+v", &v, &struct{ V any }{v})
	out["error"] = fmt.Errorf("mint: %v: %w", v, errors.New("x")).Error()
	text, _ := json.Marshal(map[string]any{"k": v})
	out["json"] = string(text)
	text, _ = yaml.Marshal(map[string]any{"k": v})
	out["yaml"] = string(text)
	text, _ = xml.Marshal(v)
	out["xml"] = string(text)
	var binary bytes.Buffer
	_ = gob.NewEncoder(&binary).Encode(v)
	out["gob"] = binary.String()
	out["zap"], out["slog"] = zapped(v), slogged(v)
	out["cmp"] = cmp.Diff(v, nil, cmp.Exporter(func(reflect.Type) bool { return true }))
	return out
}

func zapped(v any) string {
	var out bytes.Buffer
	for _, encoder := range []zapcore.Encoder{
		zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()),
	} {
		log := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(&out), zap.DebugLevel))
		log.Info("x", zap.Any("any", v), zap.Reflect("reflect", v))
		log.Sugar().Infow("x", "key", v, "in", struct{ V any }{v})
		log.Sugar().Infof("%v %+v %s", v, v, v)
		if s, ok := v.(fmt.Stringer); ok {
			log.Info("x", zap.Stringer("stringer", s))
		}
	}
	return out.String()
}

func slogged(v any) string {
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", v)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", v)
	return out.String()
}

// prints says where the secret shows, also in hexadecimal or as numbers.
func prints(v any, secret, verbs string) []string {
	numbers := strings.Trim(fmt.Sprint([]byte(secret[:6])), "[]")
	var where []string
	for name, text := range printings(v, verbs) {
		plain := strings.ToLower(text)
		for _, form := range []string{
			secret, fmt.Sprintf("%x", secret), fmt.Sprintf("% x", secret), numbers,
			strings.ReplaceAll(numbers, " ", ", "), strings.ReplaceAll(numbers, " ", ","),
			strings.Trim(strings.ReplaceAll(fmt.Sprintf("%#v", []byte(secret[:6])), "[]byte{", ""), "}"),
		} {
			if strings.Contains(plain, strings.ToLower(form)) {
				where = append(where, name)
				break
			}
		}
	}
	return where
}

// TestTokenNeverPrints: with no verb, encoder or logger, alone or inside of something.
func TestTokenNeverPrints(t *testing.T) {
	const secret = "q7wZ0secretK9"
	if where := prints(naked{[]byte(secret)}, secret, formatted); len(where) < 20 {
		t.Fatalf("a planted printing type is caught by %v only", where)
	}
	if where := prints(struct{ B []byte }{[]byte(secret)}, secret, formatted); len(where) < 10 {
		t.Fatalf("planted bytes are caught by %v only", where)
	}
	if where := prints(carrier{plain: naked{[]byte(secret)}}, secret, formatted); len(where) < 10 {
		t.Fatalf("planted bytes in unexported fields are caught by %v only", where)
	}
	fresh := NewToken(secret)
	minted := Minted{Token: fresh}
	for _, v := range []any{
		fresh, &fresh, minted, &minted, []Token{fresh}, map[string]Token{"k": fresh}, func() Token { return fresh },
		carrier{fresh: fresh, behind: &fresh, minted: minted, list: []Token{fresh}}, token{fresh: fresh}, &volume{tokens: []token{{fresh: fresh}}},
	} {
		if where := prints(v, secret, formatted); len(where) > 0 {
			t.Errorf("%T prints with %q", v, where)
		}
	}
	for _, text := range []string{fresh.String(), fresh.GoString(), fresh.LogValue().String()} {
		if text != redacted {
			t.Errorf("a method says %q", text)
		}
	}
	if string(fresh.reveal()) != secret || fresh.empty() || !(Token{}).empty() || !NewToken("").empty() {
		t.Error("the token itself is lost")
	}
}

// TestTokenInAPanic: a program that dies of a value that holds a token, or of an error that a Mint made of one, does not
// print it.
func TestTokenInAPanic(t *testing.T) {
	const secret = "eyJhbGciOiJub25lIn0.q7wZ0secretK9q7wZ0secretK9.q7wZ0"
	values := map[string]any{
		"planted": naked{[]byte(secret)}, "token": NewToken(secret), "pointer": new(NewToken(secret)), "answer": Minted{Token: NewToken(secret)},
		"error": fmt.Errorf("publish %v: %w", Minted{Token: NewToken(secret)}, asMintError(&MintError{Code: 500, Message: "refused " + secret})),
	}
	if of := os.Getenv("PANIC_OF"); of != "" {
		panic(values[of])
	}
	for of := range values {
		cmd := exec.Command(os.Args[0], "-test.run=^TestTokenInAPanic$")
		cmd.Env = append(os.Environ(), "PANIC_OF="+of, "GOTRACEBACK=all")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: ") {
			t.Fatalf("%s: it does not panic: %v", of, err)
		}
		if is := strings.Contains(string(out), "q7wZ0secretK9"); is != (of == "planted") {
			t.Errorf("%s: the token is printed: %v", of, is)
		}
	}
}
