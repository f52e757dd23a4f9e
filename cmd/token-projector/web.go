package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/prometheus/exporter-toolkit/web"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v2"
)

// webConfig is the file that says how metrics are served and to whom, in the
// form that Prometheus's exporters share. It and the files that it names are
// read with every connection and request. While they are bad, nobody is served.
type webConfig struct {
	path   string // "": plain, to everybody
	strict bool   // it must ask for TLS and for who the client is
	log    *zap.Logger

	mu      sync.Mutex
	problem string // said last; "": none
}

// read says what is wrong with the file, in one line that names it.
func (c *webConfig) read() error {
	if c.path == "" {
		return nil
	}
	err := web.Validate(c.path)
	if err == nil && c.strict {
		err = secured(c.path)
	}
	if err == nil {
		return nil
	}
	reason := strings.Join(strings.Fields(err.Error()), " ") // YAML's have lines
	return fmt.Errorf("--web-config-file %s: %s", c.path, reason)
}

// secured: clients are asked who they are, and over TLS.
func secured(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var c web.Config
	if err := yaml.UnmarshalStrict(content, &c); err != nil {
		return err
	}
	t := c.TLSConfig
	switch {
	case !t.IsEnabled():
		return errors.New("has no tls_server_config, which metrics beyond loopback need; or do without by --metrics-insecure")
	case len(c.Users) > 0:
		return nil
	case t.ClientAuth == "RequireAndVerifyClientCert" && (t.ClientCAs != "" || t.ClientCAsText != ""):
		return nil // without a client CA, any certificate of a public one would do
	}
	return errors.New("asks no client who it is, which metrics beyond loopback need: by basic_auth_users, or by client_auth_type RequireAndVerifyClientCert with a client_ca_file; or do without by --metrics-insecure")
}

// check reads the file again. A change for the worse or better is logged, once.
func (c *webConfig) check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.read()
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	switch {
	case problem == c.problem:
	case err != nil:
		c.log.Error("the web config is bad; nobody gets metrics until it is put right", zap.String("file", c.path), zap.Error(err))
	default:
		c.log.Info("the web config is good again", zap.String("file", c.path))
	}
	c.problem = problem
	return err
}

// Write is told that something is wrong, by the toolkit, whose only complaint is of the web config, with every request.
func (c *webConfig) Write(line []byte) (int, error) {
	c.check()
	return len(line), nil
}

// toolkitLog is what the toolkit logs to.
func (c *webConfig) toolkitLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(c, &slog.HandlerOptions{Level: slog.LevelError}))
}
