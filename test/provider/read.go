package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/token-projector/token-projector/projector"
)

const readEvery = 20 * time.Millisecond

// record is one read of a token, or a signal. It never holds the token itself.
type record struct {
	At      time.Time `json:"at"`  // before the read
	PID     int       `json:"pid"` // of the reader
	Sum     string    `json:"sum,omitempty"`
	Issued  time.Time `json:"issued,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	Fault   string    `json:"fault,omitempty"`
	Signal  string    `json:"signal,omitempty"`
}

// read reads a token as an application does, by name, for ever, and records
// every read as a line of JSON. It ends with SIGINT. SIGTERM it only records: a
// container that takes its time to end.
func read(path string, out io.Writer) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	timer := time.NewTimer(0)
	lines := json.NewEncoder(out)
	for {
		r := record{At: time.Now(), PID: os.Getpid()}
		select {
		case s := <-signals:
			r.Signal = s.String()
		case <-timer.C:
			r.look(path)
			timer.Reset(readEvery)
		}
		if err := lines.Encode(r); err != nil || r.Signal == syscall.SIGINT.String() {
			return err
		}
	}
}

func (r *record) look(path string) {
	token, err := os.ReadFile(path)
	if err != nil {
		r.Fault = err.Error()
		return
	}
	sum := sha256.Sum256(token)
	r.Sum = hex.EncodeToString(sum[:])
	claims, err := projector.ParseClaims(token)
	if err != nil {
		r.Fault = err.Error()
	}
	r.Issued, r.Expires = claims.Lifetime.Issued, claims.Lifetime.Expires
}
