package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// script is a program that stands for one of the two.
func script(t *testing.T, body string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

func begin(t *testing.T, body string) *child {
	t.Helper()
	c, err := start(log.New(io.Discard, "", 0), script(t, body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// told is a writer that passes on each line it is given.
type told chan string

func (w told) Write(line []byte) (int, error) {
	w <- string(line)
	return len(line), nil
}

func TestChildThatDrains(t *testing.T) {
	lines := make(told, 1)
	c, err := start(log.New(lines, "", 0), script(t, `trap 'exit 0' TERM
echo '{"level":"info","msg":"serving metrics","address":"127.0.0.1:1"}' >&2
while :; do sleep 0.02; done`))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	if got := <-lines; got != "metrics  http://127.0.0.1:1/metrics\n" {
		t.Errorf("told %q", got)
	}
	if err := c.stop(); err != nil {
		t.Error(err)
	}
}

func TestChildThatDiesIsReportedOnceWithItsLog(t *testing.T) {
	c := begin(t, "echo a reason >&2; exit 3")
	<-c.done
	err := c.died()
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "a reason") {
		t.Errorf("died: %v", err)
	}
	if err := c.stop(); err != nil {
		t.Errorf("reported again: %v", err)
	}
}

func TestChildThatExitsBadlyOnSIGTERM(t *testing.T) {
	c := begin(t, "exec sleep 60")
	if err := c.died(); err != nil {
		t.Fatal(err)
	}
	if err := c.stop(); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("stop: %v, want an error: killed by the signal", err)
	}
}

func TestRemark(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"info","msg":"serving health","address":"127.0.0.1:2"}`:            "health   http://127.0.0.1:2/readyz",
		`{"level":"info","msg":"published"}`:                                         "",
		`{"level":"warn","msg":"slow"}`:                                              "log      warn: slow",
		`{"level":"error","message":"no","pod":"p","volume":"v","error":"bad luck"}`: "log      error: no p v bad luck",
		`not JSON`: "",
	} {
		if got := remark(line); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestTailIsBounded(t *testing.T) {
	c := begin(t, "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo line $i >&2; done")
	<-c.done
	if n := len(c.tail); n != tailLines || c.tail[n-1] != "line 100" || c.tail[0] != "line 76" {
		t.Errorf("%d lines, from %q to %q", n, c.tail[0], c.tail[n-1])
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"--for", "-1s"}, {"--for", "soon"}, {"rest"}, {"--no-such-flag"}} {
		var stderr bytes.Buffer
		if code := run(context.Background(), args, io.Discard, &stderr); code != 2 || !strings.Contains(stderr.String(), "demo: ") {
			t.Errorf("%q: exit %d, stderr %q", args, code, stderr.String())
		}
	}
}

// Whatever fails, the temporary directory goes, and so does the other program.
func TestFailureLeavesNothingBehind(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	for name, args := range map[string][]string{
		"no such program": {"--fake-apiserver", filepath.Join(tmp, "absent")},
		"server dies":     {"--fake-apiserver", script(t, "echo no luck >&2; exit 1")},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if code := run(context.Background(), args, &out, io.Discard); code != 1 || !strings.Contains(out.String(), "demo: FAILED") {
				t.Errorf("exit %d, printed %q", code, out.String())
			}
			left, err := filepath.Glob(filepath.Join(tmp, "token-projector-demo-*"))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %q %v", left, err)
			}
		})
	}
}
