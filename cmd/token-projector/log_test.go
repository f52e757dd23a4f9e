package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// TestClientLogger: what client-go says of each attempt is heard once in a minute; another message is, too, and the
// daemon's own are not thinned out. None of client-go's is more than a warning.
func TestClientLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, seen := observer.New(zapcore.InfoLevel)
		log := zap.New(core)
		client := zapr.NewLogger(clientLogger(log))
		const minutes = 10
		for range minutes * 60 {
			client.WithValues("reflector", "pods").Error(errors.New("refused"), "Failed to watch")
			client.Error(errors.New("no such file"), "Loading client cert failed")
			log.Error("own")
			time.Sleep(time.Second)
		}
		for message, want := range map[string]int{
			"Failed to watch": minutes, "Loading client cert failed": minutes, "own": minutes * 60,
		} {
			if got := seen.FilterMessage(message).Len(); got < want || got > want+1 {
				t.Errorf("%q: %d lines, want %d", message, got, want)
			}
			as := zapcore.WarnLevel
			if message == "own" {
				as = zapcore.ErrorLevel
			}
			if got := seen.FilterMessage(message).FilterLevelExact(as).Len(); got != seen.FilterMessage(message).Len() {
				t.Errorf("%q: only %d lines are of level %s", message, got, as)
			}
		}
	})
}
