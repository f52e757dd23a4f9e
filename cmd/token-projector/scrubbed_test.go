package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	corev1 "k8s.io/api/core/v1"
)

const (
	signature = "c2lnbmF0dXJlLW9mLWEtdG9rZW4Q"
	leaked    = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQifQ." + signature
)

// broken cannot be encoded, and says something else than itself.
type broken struct{ Ch chan int }

// logAll logs a token in each way that client-go and we have of logging.
func logAll(log *zap.Logger) {
	err := errors.New("the server says: Bearer " + leaked + "\n\x1b[31mred")
	log.Info("message " + leaked)
	log.Warn("fields", zap.Error(err), zap.String("string", leaked), zap.ByteString("bytes", []byte(leaked)), zap.Strings("strings", []string{leaked}),
		zap.Any("any", map[string]any{"k": leaked}), zap.Any("event", &corev1.Event{Message: leaked}), zap.Reflect("reflect", struct{ V string }{leaked}),
		zap.Stringer("stringer", bytes.NewBufferString(leaked)), zap.Errors("errors", []error{err}), zap.Inline(zapcore.ObjectMarshalerFunc(func(e zapcore.ObjectEncoder) error {
			e.AddString("inline", leaked)
			return nil
		})), zap.Any("broken", broken{}))
	log.With(zap.String("with", leaked)).Named("named").Debug("more")
	log.Sugar().Errorf("formatted %v", err)
	zap.NewStdLog(log).Printf("standard %v", err)
	client := zapr.NewLogger(clientLogger(log))
	client.Error(err, "Failed to watch", "event", &corev1.Event{Message: leaked}, "err", err)
	client.Info("Warning: " + err.Error())
}

// TestLogIsScrubbed: in both formats, whoever says it, and in whatever kind of field.
func TestLogIsScrubbed(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		var plain, out bytes.Buffer
		o := &serving{logFormat: format, level: zapcore.DebugLevel}
		logAll(zap.New(zapcore.NewCore(newEncoder(o), zapcore.AddSync(&plain), o.level)))
		if n := strings.Count(plain.String(), signature); n < 15 {
			t.Fatalf("%s: a plain log shows the token %d times only", format, n)
		}
		logAll(newLogger(o, &out))
		if strings.Contains(out.String(), signature) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%s: %s", format, strings.ReplaceAll(out.String(), signature, "(signature)"))
		}
		if n := strings.Count(out.String(), "[token]"); n < 15 {
			t.Errorf("%s: %d tokens are marked:\n%s", format, n, &out)
		}
		if n := strings.Count(out.String(), "\n"); n != 7 {
			t.Errorf("%s: %d lines, want 7:\n%s", format, n, &out)
		}
	}
}

// TestLogKeeps: what is no text is logged as ever, and the level counts.
func TestLogKeeps(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&serving{logFormat: "json", level: zapcore.InfoLevel}, &out)
	log.Debug("unheard")
	log.Info("heard", zap.Int("n", 7), zap.Bool("ok", true), zap.Duration("d", 1500*time.Millisecond), zap.Float64("f", 0.5), zap.Error(nil),
		zap.String("pod", "web-1"), zap.NamedError("e", fmt.Errorf("x: %w", errors.New("y"))), zap.Strings("s", []string{"a", "b"}))
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil { // which also says that it is one line
		t.Fatal(err)
	}
	delete(got, "time")
	want := map[string]any{"level": "info", "msg": "heard", "n": 7.0, "ok": true, "d": 1.5, "f": 0.5, "pod": "web-1", "e": "x: y", "s": `["a","b"]`}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}
