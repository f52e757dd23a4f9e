package main

import (
	"bytes"
	"cmp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func noEnv(string) string { return "" }

func parse(args []string, getenv func(string) string) (*options, error) {
	o, f := &options{}, pflag.NewFlagSet("run", pflag.ContinueOnError)
	o.addFlags(f)
	return o, cmp.Or(f.Parse(args), o.complete(getenv))
}

func TestParse(t *testing.T) {
	o, err := parse(nil, func(name string) string {
		if name == "NODE_NAME" {
			return "node-7"
		}
		return ""
	})
	if err != nil {
		t.Fatal(err)
	}
	want := options{
		nodeName: "node-7", identity: "impersonate-node", rootDir: "/run/token-projector", volumes: "all", maxInFlight: 16,
		serving: serving{metricsAddress: "127.0.0.1:9477", healthAddress: "127.0.0.1:9478", logLevel: "info", logFormat: "json"},
	}
	got := *o
	got.selector, got.level = nil, 0
	if got != want {
		t.Errorf("defaults are %+v, want %+v", got, want)
	}
	o, err = parse([]string{"--node-name", "n", "--pod-selector", "app=web,tier!=db", "--volumes=unmounted"}, noEnv)
	if err != nil {
		t.Fatal(err)
	}
	if o.nodeName != "n" || o.selector.String() != "app=web,tier!=db" || o.volumes != "unmounted" {
		t.Errorf("parsed %+v", o)
	}
}

// TestParseIdentity: without the flag, whoever gives a kubeconfig wants to be whom it names.
func TestParseIdentity(t *testing.T) {
	for args, want := range map[string]string{
		"":                                     "impersonate-node",
		"--kubeconfig f":                       "kubeconfig",
		"--identity impersonate-node":          "impersonate-node",
		"--identity kubeconfig --kubeconfig f": "kubeconfig",
		"--identity service-account":           "service-account",
	} {
		o, err := parse(append([]string{"--node-name", "n"}, strings.Fields(args)...), noEnv)
		if err != nil {
			t.Errorf("%q: %v", args, err)
		} else if o.identity != want {
			t.Errorf("%q: identity %s, want %s", args, o.identity, want)
		}
	}
}

// TestSecureMetrics: metrics need TLS and authentication wherever they may be read from elsewhere, unless the operator does without.
func TestSecureMetrics(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1": false, "127.8.0.1:1": false, "[::1]:1": false, "localhost:1": false,
		":1": true, "0.0.0.0:1": true, "[::]:1": true, "10.0.0.1:1": true, "[fe80::1%eth0]:1": true, "localhost.example:1": true,
	} {
		if o := (&serving{metricsAddress: address}); o.secureMetrics() != want {
			t.Errorf("%s: %v, want %v", address, !want, want)
		}
		if o := (&serving{metricsAddress: address, metricsInsecure: true}); o.secureMetrics() {
			t.Errorf("%s: needs them in spite of --metrics-insecure", address)
		}
		_, err := parse([]string{"--node-name", "n", "--metrics-address", address, "--pprof", "--web-config-file", "f"}, noEnv)
		if err != nil {
			t.Error(err)
		}
	}
}

// TestMisuse: one clear line on stderr that names what is wrong, exit 2.
func TestMisuse(t *testing.T) {
	for args, names := range map[string]string{
		"run":                               "NODE_NAME",
		"run --node-name Node_1":            "--node-name",
		"run --node-name n --identity root": "impersonate-node, kubeconfig, service-account",
		"run --node-name n --identity kubeconfig":                           "--kubeconfig, or in a pod use impersonate-node or service-account",
		"run --node-name n --identity impersonate-node --kubeconfig f":      "--identity impersonate-node is by the credential of the daemon's own pod, and --kubeconfig names another one: leave one of the two flags out",
		"run --node-name n --identity service-account --kubeconfig f":       "--identity service-account is by the credential of the daemon's own pod, and --kubeconfig names another one: leave one of the two flags out",
		"run --node-name n --volumes some":                                  "--volumes",
		"run --node-name n --root-dir run":                                  "--root-dir",
		"run --node-name n --root-dir /":                                    "--root-dir",
		"run --node-name n --max-in-flight 0":                               "--max-in-flight",
		"run --node-name n --max-in-flight x":                               "--max-in-flight",
		"run --node-name n --pod-selector a=(":                              "--pod-selector",
		"run --node-name n --metrics-address 9477":                          "--metrics-address",
		"run --node-name n --health-address :99999":                         "--health-address",
		"run --node-name n --health-address nowhere":                        "--health-address",
		"run --node-name n --log-level loud":                                "--log-level",
		"run --node-name n --log-level panic":                               "--log-level",
		"run --node-name n --log-format xml":                                "--log-format",
		"run --node-name n --colour red":                                    "--colour",
		"run --node-name n extra":                                           "extra",
		"project":                                                           "project",
		"help project":                                                      "project",
		"help run project":                                                  "project",
		"completion csh":                                                    "csh",
		"completion bash extra":                                             "extra",
		"inspect --colour":                                                  "--colour",
		"wait --colour":                                                     "--colour",
		"version extra":                                                     "extra",
		"run --node-name n --metrics-address :9477":                         "--web-config-file",
		"run --node-name n --metrics-address [::]:1":                        "--metrics-insecure",
		"run --node-name n --metrics-address node-7:1":                      "--metrics-insecure",
		"run --node-name n --metrics-address :1 --pprof --metrics-insecure": "--pprof",
		"run --node-name n --metrics-address :1 --pprof --metrics-insecure --web-config-file f": "--pprof",
	} {
		t.Setenv("NODE_NAME", "")
		var stdout, stderr bytes.Buffer
		if status := command(t.Context(), strings.Fields(args), &stdout, &stderr); status != 2 {
			t.Errorf("%s: exit status %d, want 2", args, status)
		}
		if got := stderr.String(); !strings.Contains(got, names) || strings.Count(got, "\n") != 1 || stdout.Len() > 0 {
			t.Errorf("%s: stderr %q, stdout %q; want one line that names %s", args, got, stdout.String(), names)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for args, want := range map[string]string{
		"": "Usage:", "help": "inspect", "--help": "inspect", "run --help": "--root-dir", "help run": "--root-dir", "completion": "powershell", "completion bash": "bash completion", "help completion": "powershell", "help help": "help [command]", "version": "token-projector dev",
	} {
		var stdout, stderr bytes.Buffer
		if status := command(t.Context(), strings.Fields(args), &stdout, &stderr); status != 0 {
			t.Errorf("%q: exit status %d", args, status)
		}
		if !strings.Contains(stdout.String(), want) || stderr.Len() > 0 {
			t.Errorf("%q: stdout %q, stderr %q", args, stdout.String(), stderr.String())
		}
	}
}

// TestCannotStart: what keeps the daemon from starting is one clear line, exit 1.
func TestCannotStart(t *testing.T) {
	base := []string{"run", "--node-name", "n", "--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0"}
	for name, c := range map[string]struct {
		args  []string
		names string
	}{
		"no cluster":      {nil, "--identity impersonate-node needs the credential of a pod; elsewhere give --kubeconfig"},
		"no pod":          {[]string{"--identity", "service-account"}, "--identity service-account needs the credential of a pod; elsewhere give --kubeconfig"},
		"no kubeconfig":   {[]string{"--kubeconfig", t.TempDir() + "/none"}, "none"},
		"no address":      {[]string{"--metrics-address", "203.0.113.1:1", "--metrics-insecure"}, "metrics"},
		"no web config":   {[]string{"--web-config-file", "/none/web.yml"}, "/none/web.yml"},
		"bad web config":  {[]string{"--web-config-file", webFile(t, "a: 1\n")}, "line 1"},
		"open web config": {[]string{"--web-config-file", webFile(t, user(t)), "--metrics-address", ":0"}, "tls_server_config"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", "")
			var stdout, stderr bytes.Buffer
			if status := command(t.Context(), append(base, c.args...), &stdout, &stderr); status != 1 {
				t.Errorf("exit status %d, want 1", status)
			}
			lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
			if last := lines[len(lines)-1]; !strings.HasPrefix(last, "token-projector: ") || !strings.Contains(last, c.names) {
				t.Errorf("last line %q, want one that names %q", last, c.names)
			}
		})
	}
}
