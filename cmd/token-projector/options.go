package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/token-projector/token-projector/projector"
)

// defaultRoot is where everything is published.
const defaultRoot = "/run/token-projector"

// options is the command line of run.
type options struct {
	nodeName        string
	identity        string // --identity, or what --kubeconfig makes of it
	kubeconfig      string
	rootDir         string
	volumes         string
	podSelector     string
	maxInFlight     int
	metricsAddress  string
	webConfigFile   string
	metricsInsecure bool
	pprof           bool
	healthAddress   string
	logLevel        string
	logFormat       string

	selector labels.Selector // parsed from podSelector
	level    zapcore.Level   // parsed from logLevel
}

// addFlags makes the flags of run.
func (o *options) addFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVar(&o.nodeName, "node-name", "", "node whose pods are served (default $NODE_NAME)")
	f.StringVar(&o.identity, "identity", "", "who the daemon is to the API server: impersonate-node, its node, by its own pod's token (Kubernetes 1.36 or newer); kubeconfig, whoever --kubeconfig names; service-account, its own pod's account, which nothing ties to the node (default impersonate-node, with --kubeconfig kubeconfig)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig with the node's credentials, of which the files that it names are read again when they change")
	f.StringVar(&o.rootDir, "root-dir", defaultRoot, "directory for everything published; best on tmpfs")
	f.StringVar(&o.volumes, "volumes", string(projector.SelectAll), "which projected token volumes to serve: all, or unmounted, those no container mounts")
	f.StringVar(&o.podSelector, "pod-selector", "", "label selector of the pods to take on; one that is served stays so (default: every pod of the node)")
	f.IntVar(&o.maxInFlight, "max-in-flight", projector.DefaultMaxInFlight, "TokenRequests in flight at most")
	f.StringVar(&o.metricsAddress, "metrics-address", "127.0.0.1:9477", "address of /metrics; port 0 picks a free one")
	f.StringVar(&o.webConfigFile, "web-config-file", "", "TLS and authentication for --metrics-address, in the form of Prometheus's exporters; read again with every request (default: plain HTTP, on loopback only)")
	f.BoolVar(&o.metricsInsecure, "metrics-insecure", false, "let --metrics-address be beyond loopback without TLS and authentication: whoever reaches it reads it")
	f.BoolVar(&o.pprof, "pprof", false, "serve /debug/pprof/ on --metrics-address, too")
	f.StringVar(&o.healthAddress, "health-address", "127.0.0.1:9478", "address of /healthz and /readyz; port 0 picks a free one")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "json", "json or console")
}

// complete takes the rest from the environment, and checks everything. Its
// error is one line that names the flag and the way out.
func (o *options) complete(getenv func(string) string) error {
	if o.nodeName == "" {
		o.nodeName = getenv("NODE_NAME")
	}
	return o.validate()
}

func (o *options) validate() error {
	var err error
	if o.nodeName == "" {
		return errors.New("--node-name is empty and $NODE_NAME is not set; one of them must name the node")
	}
	if problems := validation.IsDNS1123Subdomain(o.nodeName); len(problems) > 0 {
		return fmt.Errorf("--node-name %q: %s", o.nodeName, problems[0])
	}
	if !filepath.IsAbs(o.rootDir) || filepath.Clean(o.rootDir) == "/" {
		return fmt.Errorf("--root-dir %q: must be an absolute path below /", o.rootDir)
	}
	if o.volumes != string(projector.SelectAll) && o.volumes != string(projector.SelectUnmounted) {
		return fmt.Errorf("--volumes %q: must be all or unmounted", o.volumes)
	}
	if o.selector, err = labels.Parse(o.podSelector); err != nil {
		return fmt.Errorf("--pod-selector %q: %w", o.podSelector, err)
	}
	if o.maxInFlight < 1 || o.maxInFlight > 1000 {
		return fmt.Errorf("--max-in-flight %d: must be from 1 to 1000", o.maxInFlight)
	}
	return cmp.Or(o.validateIdentity(), o.validateAddresses(), o.validateLog())
}

func (o *options) validateAddresses() error {
	if err := cmp.Or(address("--metrics-address", o.metricsAddress), address("--health-address", o.healthAddress)); err != nil {
		return err
	}
	switch {
	case o.secureMetrics() && o.webConfigFile == "":
		return fmt.Errorf("--metrics-address %q: beyond loopback, TLS and authentication are needed by --web-config-file; or do without by --metrics-insecure", o.metricsAddress)
	case o.pprof && o.openMetrics():
		return fmt.Errorf("--pprof: not on %q with --metrics-insecure; use --web-config-file, or a loopback address", o.metricsAddress)
	}
	return nil
}

// secureMetrics tells whether metrics need TLS and authentication.
func (o *options) secureMetrics() bool { return !loopback(o.metricsAddress) && !o.metricsInsecure }

// openMetrics tells whether whoever reaches them may read them.
func (o *options) openMetrics() bool { return !loopback(o.metricsAddress) && o.metricsInsecure }

// loopback tells whether only this machine, or pod, reaches the address. Of names, it knows but one.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost"
}

func (o *options) validateLog() error {
	var err error
	if o.level, err = zapcore.ParseLevel(o.logLevel); err != nil || o.level < zapcore.DebugLevel || o.level > zapcore.ErrorLevel {
		return fmt.Errorf("--log-level %q: must be debug, info, warn or error", o.logLevel)
	}
	if o.logFormat != "json" && o.logFormat != "console" {
		return fmt.Errorf("--log-format %q: must be json or console", o.logFormat)
	}
	return nil
}

func address(flag, value string) error {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		return fmt.Errorf("%s %q: must be HOST:PORT", flag, value)
	}
	return nil
}
