package main

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"

	"github.com/spf13/pflag"
	"go.uber.org/zap/zapcore"
)

// serving is the part of a command line that says how a process that stays is scraped, probed and logs.
type serving struct {
	metricsAddress  string
	webConfigFile   string
	metricsInsecure bool
	pprof           bool
	healthAddress   string
	logLevel        string
	logFormat       string

	level zapcore.Level // parsed from logLevel
}

func (o *serving) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.metricsAddress, "metrics-address", "127.0.0.1:9477", "address of /metrics; port 0 picks a free one")
	f.StringVar(&o.webConfigFile, "web-config-file", "", "TLS and authentication for --metrics-address, in the form of Prometheus's exporters; read again with every request (default: plain HTTP, on loopback only)")
	f.BoolVar(&o.metricsInsecure, "metrics-insecure", false, "let --metrics-address be beyond loopback without TLS and authentication: whoever reaches it reads it")
	f.BoolVar(&o.pprof, "pprof", false, "serve /debug/pprof/ on --metrics-address, too")
	f.StringVar(&o.healthAddress, "health-address", "127.0.0.1:9478", "address of /healthz and /readyz; port 0 picks a free one")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "json", "json or console")
}

func (o *serving) validate() error { return cmp.Or(o.validateAddresses(), o.validateLog()) }

func (o *serving) validateAddresses() error {
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
func (o *serving) secureMetrics() bool { return !loopback(o.metricsAddress) && !o.metricsInsecure }

// openMetrics tells whether whoever reaches them may read them.
func (o *serving) openMetrics() bool { return !loopback(o.metricsAddress) && o.metricsInsecure }

// loopback tells whether only this machine, or pod, reaches the address. Of names, it knows but one.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback() || host == "localhost"
}

func (o *serving) validateLog() error {
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
