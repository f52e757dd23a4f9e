package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	appearWithin = 10 * time.Second // from pod seen to token readable
	wantTokens   = 4                // token files that a bounded run must have read
)

// wantPods are the demo pods of whom a bounded run must have read a token.
var wantPods = []string{"demo/web", "demo/vault-client", "demo/slow-to-stop"}

// fault is a kind of error of a token file; "" is none.
type fault string

const (
	missing fault = "not readable though its pod exists"
	expired fault = "expired"
	torn    fault = "torn"
	foreign fault = "not this pod's"
	late    fault = "did not appear in time"
)

// claims is what a reader looks at in a token.
type claims struct {
	issued, expires time.Time // expires: warnafter if there is one, else exp
	podUID          string
}

func (c claims) lifetime() time.Duration { return c.expires.Sub(c.issued) }

// track is what has been seen of one token file. Its methods are given the
// time and decide; they touch nothing.
type track struct {
	pod, uid, volume, path string        // pod is namespace/name
	since                  time.Time     // the pod was first seen
	fromStart              bool          // the pod was there when the run began
	first, until           time.Time     // first good read; end of the pod, zero while it lives
	lifetime               time.Duration // the shortest of a token here
	current                claims
	sum                    [sha256.Size]byte
	reads, rotations       int
	trouble                fault         // now
	faults                 map[fault]int // ever, with the number of reads
}

// read judges one complete read that began at now. The line is for the user
// when something changed, else "".
func (t *track) read(now time.Time, data []byte) (line string) {
	t.reads++
	c, err := parse(data)
	switch {
	case err != nil:
		return t.fail(torn, err.Error())
	case c.podUID != t.uid:
		return t.fail(foreign, "its token names pod UID "+c.podUID)
	}
	line = t.accept(now, c, sha256.Sum256(data))
	if !now.Before(c.expires) {
		return t.fail(expired, fmt.Sprintf("%v ago", now.Sub(c.expires).Round(time.Millisecond)))
	}
	t.trouble = ""
	return line
}

func (t *track) accept(now time.Time, c claims, sum [sha256.Size]byte) (line string) {
	switch {
	case t.first.IsZero():
		t.first, t.lifetime = now, c.lifetime()
		line = fmt.Sprintf("appeared %s: %.2fs after its pod, lives %v", t, now.Sub(t.since).Seconds(), c.lifetime())
	case sum != t.sum:
		t.rotations++
		line = fmt.Sprintf("rotated  %s: at the age of %.1fs", t, now.Sub(t.current.issued).Seconds())
	}
	t.current, t.sum, t.lifetime = c, sum, min(t.lifetime, c.lifetime())
	return line
}

// unreadable judges a read that failed at now although the pod existed after.
func (t *track) unreadable(now time.Time, err error) (line string) {
	switch {
	case t.mayWait(now):
		return ""
	case t.first.IsZero():
		return t.fail(late, fmt.Sprintf("its pod is %v old", now.Sub(t.since).Round(time.Second)))
	}
	return t.fail(missing, err.Error())
}

// mayWait tells that there need not be a file yet.
func (t *track) mayWait(now time.Time) bool {
	return t.first.IsZero() && now.Sub(t.since) <= appearWithin
}

// fail remembers every bad read and tells the first of a row.
func (t *track) fail(f fault, detail string) (line string) {
	if t.faults == nil {
		t.faults = map[fault]int{}
	}
	t.faults[f]++
	if t.trouble == f {
		return ""
	}
	t.trouble = f
	return fmt.Sprintf("ERROR    %s: %s (%s)", t, f, detail)
}

func (t *track) String() string { return t.pod + " " + t.volume + "/" + t.path }

// watched is for how long the file was readable, until now or its pod's end.
func (t *track) watched(now time.Time) time.Duration {
	switch {
	case t.first.IsZero():
		return 0
	case !t.until.IsZero():
		now = t.until
	}
	return max(0, now.Sub(t.first))
}

// wantRotations is how often it must have rotated by now in a run of the given
// length. No token may grow older than its lifetime, so a file watched for n
// whole lifetimes rotated n times at least; and twice at least if its pod lived
// through a run of three lifetimes or more, even if its token came late.
func (t *track) wantRotations(now time.Time, length time.Duration) int {
	if t.lifetime <= 0 {
		return 0
	}
	n := int(t.watched(now) / t.lifetime)
	if t.fromStart && t.until.IsZero() && length >= 3*t.lifetime {
		n = max(n, 2)
	}
	return n
}

// verdict lists what is wrong with this file at the end of a run.
func (t *track) verdict(now time.Time, length time.Duration) []string {
	var wrong []string
	for f, n := range t.faults {
		wrong = append(wrong, fmt.Sprintf("%s: %s (%d reads)", t, f, n))
	}
	slices.Sort(wrong)
	if want := t.wantRotations(now, length); t.rotations < want {
		wrong = append(wrong, fmt.Sprintf("%s: rotated %d times in %.1fs, want %d",
			t, t.rotations, t.watched(now).Seconds(), want))
	}
	return wrong
}

// judge lists what is wrong after a run. A bounded one (length not 0) must also
// have read enough.
func judge(tracks []*track, now time.Time, length time.Duration) []string {
	var wrong []string
	read, pods := 0, map[string]bool{}
	for _, t := range tracks {
		wrong = append(wrong, t.verdict(now, length)...)
		if !t.first.IsZero() {
			read++
			pods[t.pod] = true
		}
	}
	if length == 0 {
		return wrong
	}
	if read < wantTokens {
		wrong = append(wrong, fmt.Sprintf("only %d token files were read, want %d", read, wantTokens))
	}
	for _, pod := range wantPods {
		if !pods[pod] {
			wrong = append(wrong, pod+": no token was ever read")
		}
	}
	return wrong
}

// summarize counts for the last line.
func summarize(tracks []*track) string {
	pods, files, reads, rotations := map[string]bool{}, 0, 0, 0
	for _, t := range tracks {
		if !t.first.IsZero() {
			pods[t.uid] = true
			files++
		}
		reads += t.reads
		rotations += t.rotations
	}
	return fmt.Sprintf("%d token files of %d pods rotated %d times in all; %d reads, none failed, torn or expired",
		files, len(pods), rotations, reads)
}

// parse takes a file for a whole JWT or says why it is none. It checks the
// length of the signature, not the signature: a cut file has a short one. Its
// errors never show any of the token.
func parse(data []byte) (claims, error) {
	parts := bytes.Split(data, []byte("."))
	if len(parts) != 3 {
		return claims{}, fmt.Errorf("%d bytes in %d parts, want 3 parts", len(data), len(parts))
	}
	var header struct{ Alg string }
	var body struct {
		Exp, Iat int64
		Private  struct {
			Pod       struct{ UID string }
			WarnAfter int64
		} `json:"kubernetes.io"`
	}
	signature, err := base64.RawURLEncoding.DecodeString(string(parts[2]))
	if err != nil || decode(parts[0], &header) != nil || decode(parts[1], &body) != nil {
		return claims{}, errors.New("not base64 or not JSON")
	}
	if len(signature) != signatureLength(header.Alg, len(signature)) {
		return claims{}, fmt.Errorf("a signature of %d bytes for %q", len(signature), header.Alg)
	}
	if body.Iat <= 0 || body.Exp <= body.Iat {
		return claims{}, errors.New("no sensible iat and exp")
	}
	end := body.Exp
	if w := body.Private.WarnAfter; w > 0 {
		end = min(end, w)
	}
	return claims{time.Unix(body.Iat, 0), time.Unix(end, 0), body.Private.Pod.UID}, nil
}

func decode(part []byte, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(string(part))
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// signatureLength is what the algorithm prescribes, in bytes. RSA goes by the
// key: any of the usual sizes is right.
func signatureLength(alg string, got int) int {
	switch {
	case alg == "ES256":
		return 64
	case strings.HasPrefix(alg, "RS") && slices.Contains([]int{256, 384, 512}, got):
		return got
	}
	return -1
}
