package daemontest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// Node is the node that daemons serve: the fake server's own.
const Node = "node-1"

// Process is one run of the daemon.
type Process struct {
	// Metrics and Health are the addresses that it serves on.
	Metrics, Health string

	t           *testing.T
	api         *fakeapi.Server
	root        string
	kubeconfig  string
	credentials []string // of its start
	cmd         *exec.Cmd
	output      *output
	leaked      atomic.Bool // something that it said, which is not to be repeated then
	exited      chan struct{}
	err         error // of the process, once exited
}

// output collects what a process prints and lets tests wait for it.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(p), nil
}

func (o *output) String() string {
	text, _ := o.next()
	return text
}

func (o *output) next() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// Start runs the daemon, with the node's credentials, on a root, and waits until it serves. The test's end ends it, if
// nothing else has.
func Start(t *testing.T, api *fakeapi.Server, root string, extra ...string) *Process {
	t.Helper()
	return StartUnder(t, nil, api, root, extra...)
}

// StartUnder is Start by way of a command, which must become the daemon: it ends with an exec of its further arguments.
func StartUnder(t *testing.T, command []string, api *fakeapi.Server, root string, extra ...string) *Process {
	t.Helper()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := api.WriteKubeconfig(kubeconfig); err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, api: api, root: root, output: &output{changed: make(chan struct{})}, exited: make(chan struct{})}
	args := slices.Concat(command, []string{
		binary, "run", "--node-name", Node, "--kubeconfig", kubeconfig, "--root-dir", root,
		"--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0", "--log-level", "debug",
	}, extra)
	for i, arg := range args { // the last one counts
		if arg == "--kubeconfig" {
			p.kubeconfig = args[i+1]
		}
	}
	var err error
	if p.credentials, err = credentials(p.kubeconfig); err != nil {
		t.Fatal(err)
	}
	p.launch(args)
	p.search() // nothing: but from now on what is secret is known, should it be replaced
	p.Metrics, p.Health = p.address("serving metrics"), p.address("serving health")
	return p
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is what the daemon has printed so far.
func (p *Process) Output() string { return p.output.String() }

func (p *Process) launch(args []string) {
	p.t.Helper()
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stderr, p.cmd.Stdout = p.output, p.output
	p.cmd.Dir = p.t.TempDir()
	p.cmd.Env = append(os.Environ(), "TMPDIR="+p.cmd.Dir)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	p.t.Cleanup(p.finish)
}

// address waits for the log line with that message and returns its address.
func (p *Process) address(msg string) string {
	p.t.Helper()
	return p.Line(msg)["address"].(string)
}

// Line waits for the log line with that message, and returns its fields.
func (p *Process) Line(msg string) map[string]any {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		text, changed := p.output.next()
		for l := range strings.Lines(text) {
			if entry := parse(l); entry["msg"] == msg {
				return entry
			}
		}
		select {
		case <-changed:
		case <-p.exited:
			p.t.Fatalf("daemon ended (%v) before it said %q:\n%s", p.err, msg, p.output)
		case <-ctx.Done():
			p.t.Fatalf("daemon never said %q:\n%s", msg, p.output)
		}
	}
}

// parse takes a line of either format apart; nil: it is none, or not whole.
func parse(line string) (entry map[string]any) {
	if json.Unmarshal([]byte(line), &entry) == nil {
		return entry
	}
	if columns := strings.Split(line, "\t"); len(columns) > 3 && json.Unmarshal([]byte(columns[len(columns)-1]), &entry) == nil {
		entry["msg"] = columns[len(columns)-2]
	}
	return entry
}

// wantNames fails the test if a line of the log is about a pod or a volume and does not name it, as one that is planted does not.
func (p *Process) wantNames(log string) {
	p.t.Helper()
	const planted = "planted"
	got := nameless(log + "\n" + `{"level":"info","msg":"planted","namespace":"n","pod":"p","volume":"v"}` + "\n")
	if len(got) == 0 || got[len(got)-1] != planted {
		p.t.Error("a planted line without a pod's UID is not found")
	}
	for _, message := range got[:max(len(got)-1, 0)] {
		p.t.Errorf("a line of the log does not say of which pod it is: %s", message)
	}
}

// nameless are the messages of those lines of a log that are about a pod or a volume and do not name it as docs/logs.md says.
func nameless(log string) (messages []string) {
	for l := range strings.Lines(log) {
		entry := parse(l)
		has := func(key string) bool { return entry[key] != nil }
		if entry["logger"] == nil && slices.ContainsFunc([]string{"pod", "pod_uid", "uid", "volume"}, has) &&
			!(has("namespace") && has("pod") && has("pod_uid")) {
			messages = append(messages, fmt.Sprint(entry["msg"]))
		}
	}
	return messages
}

// finish ends the process if the test did not, and looks for what must never
// be in what it said.
func (p *Process) finish() {
	p.inspect()
	p.cmd.Process.Kill()
	<-p.exited
	text := p.output.String()
	if strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic:") {
		p.t.Error("the daemon has a data race, or panics")
	}
	p.wantNames(text)
	p.wantNothingIn(p.cmd.Dir)
	p.searchAll()
	if p.t.Failed() && !p.leaked.Load() {
		p.t.Logf("daemon's output:\n%s", tail(text, 60))
	}
}

// Leaked counts the tokens of which the text holds the payload or signature, or some of it, in whatever form.
func Leaked(text string, tokens [][]byte) int {
	var s Secrets
	for _, token := range tokens {
		s.Add(string(token))
	}
	n, _ := s.In(text)
	return n
}

func tail(text string, n int) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// Terminate sends SIGTERM and expects a clean end.
func (p *Process) Terminate() {
	p.t.Helper()
	p.inspect()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.exit(0)
}

// Suspend stops the process where it is, and Resume lets it go on, as a suspended machine would.
func (p *Process) Suspend() { p.signal(syscall.SIGSTOP) }

// Resume ends what Suspend began.
func (p *Process) Resume() { p.signal(syscall.SIGCONT) }

func (p *Process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Kill is kill -9.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.exited
}

// Abort sends SIGABRT, as abort(3) would, and returns how the process ended.
func (p *Process) Abort() syscall.WaitStatus {
	p.t.Helper()
	p.inspect()
	p.signal(syscall.SIGABRT)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatal("daemon does not end")
	}
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// exit waits for the process to end with that status.
func (p *Process) exit(status int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("daemon does not end:\n%s", tail(p.output.String(), 30))
	}
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](p.err); ok {
		got = e.ExitCode()
	} else if p.err != nil {
		p.t.Fatal(p.err)
	}
	if got != status {
		p.t.Fatalf("exit status %d, want %d:\n%s", got, status, tail(p.output.String(), 30))
	}
}

// Command carries out another command of the program, and returns what it said and its exit status.
func Command(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
