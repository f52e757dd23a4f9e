package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/projector"
)

// waiting is the command line of wait.
type waiting struct {
	file    string
	timeout time.Duration
}

// waitPoll is how often the file is looked at. A poll works on every file system and on a directory that is not there
// yet; an init container runs for seconds.
const waitPoll = 100 * time.Millisecond

func waitCommand() *cobra.Command {
	o := &waiting{}
	c := &cobra.Command{
		Use:   "wait --file PATH",
		Short: "Wait until a token is there and fresh: for an init container",
		Long: "Waits until PATH is a file that is a whole token and whose refresh is not overdue; then it exits 0. It asks nobody and checks no\n" +
			"signature. It says why it waits when that changes. After --timeout it says what is wrong, and exits 1.",
		Example: "  token-projector wait --file /var/run/secrets/tokens/vault-token --timeout 2m",
		Args:    noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return misuse{err}
			}
			keepPrivateOrSay(c.ErrOrStderr())
			return o.run(c.Context(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.file, "file", "", "the token's file")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0: for ever")
	complete(c, nil)
	return c
}

func (o *waiting) complete() error {
	switch {
	case o.file == "":
		return errors.New("--file must name the token's file")
	case o.timeout < 0:
		return fmt.Errorf("--timeout %s: must not be negative", o.timeout)
	}
	return nil
}

func (o *waiting) run(ctx context.Context, stderr io.Writer) error {
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	timer := time.NewTimer(waitPoll)
	defer timer.Stop()
	said := ""
	for {
		err := patient(ctx, o.file, func() error { return usable(o.file, time.Now()) })
		if err == nil {
			return nil
		}
		if why := projector.Scrub(err.Error()); why != said {
			fmt.Fprintf(stderr, "token-projector: waiting: %s\n", why)
			said = why
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("gave up after %s: %w", o.timeout, err)
			}
			return fmt.Errorf("interrupted: %w", err)
		case <-timer.C:
			timer.Reset(waitPoll)
		}
	}
}

// patient says what usable says of the file. A read that hangs, as that of a file system which does not answer, is left behind when ctx
// ends, with its goroutine.
func patient(ctx context.Context, file string, usable func() error) error {
	looked := make(chan error, 1)
	go func() { looked <- usable() }()
	select {
	case err := <-looked:
		return err
	case <-ctx.Done():
		select {
		case err := <-looked: // it has not hung
			return err
		case <-time.After(waitPoll):
			return fmt.Errorf("%s cannot be read: it is there, and gives neither content nor an error", file)
		}
	}
}

// maxToken is the most that is read of a token's file, in bytes.
const maxToken = 1 << 20

// signatures are how many bytes one has by the algorithm; of RSA, a multiple of 64 that is no less, for keys of 1,024, 2,048, 3,072 bits and so on.
var signatures = map[string]int{string(jose.RS256): 1024 / 8, string(jose.ES256): 2 * 32, string(jose.ES384): 2 * 48, string(jose.ES512): 2 * 66}

// whole says whether some of a token's end is missing, which parses nevertheless: the file is being written in place, not by us.
func whole(token []byte) error {
	token = bytes.TrimSpace(token)
	parsed, err := jwt.ParseSigned(string(token), projector.Algorithms())
	if err != nil {
		return err
	}
	algorithm := parsed.Headers[0].Algorithm
	signature, err := base64.RawURLEncoding.Strict().DecodeString(string(token[bytes.LastIndexByte(token, '.')+1:]))
	n, want := len(signature), signatures[algorithm]
	if algorithm == string(jose.RS256) && n > want && n%64 == 0 {
		want = n
	}
	if err != nil || n != want || bytes.ContainsAny(token, "\r\n") {
		return fmt.Errorf("its signature is not a whole one of %s", algorithm)
	}
	return nil
}

// usable says why the file at path is no token that a client should start with; nil: it is.
func usable(path string, now time.Time) error {
	// A FIFO must not be waited for in open.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not there", path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a file", filepath.Clean(path))
	}
	text, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return err
	}
	c, err := projector.ParseClaims(text)
	if err == nil {
		err = whole(text)
	}
	if err != nil {
		return fmt.Errorf("%s holds no token: %w", path, err)
	}
	from, early := validFrom(c, now)
	switch {
	case c.Lifetime.Expired(now):
		return fmt.Errorf("%s expired at %s", path, stamp(c.Lifetime.Expires))
	case !now.Before(c.Lifetime.Limit()):
		return fmt.Errorf("%s is stale: it should have been refreshed at %s", path, stamp(c.Lifetime.Limit()))
	case early:
		return fmt.Errorf("%s is not valid before %s by this machine's clock", path, stamp(from))
	}
	return nil
}
