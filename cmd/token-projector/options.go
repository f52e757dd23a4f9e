package main

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/token-projector/token-projector/projector"
)

// defaultRoot is where everything is published.
const defaultRoot = "/run/token-projector"

// options is the command line of run.
type options struct {
	nodeName    string
	identity    string // --identity, or what --kubeconfig makes of it
	kubeconfig  string
	rootDir     string
	volumes     string
	podSelector string
	maxInFlight int
	serving

	selector labels.Selector // parsed from podSelector
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
	o.serving.addFlags(f)
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
	if err := validRoot(o.rootDir); err != nil {
		return err
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
	return cmp.Or(o.validateIdentity(), o.serving.validate())
}

func validRoot(dir string) error {
	if !filepath.IsAbs(dir) || filepath.Clean(dir) == "/" {
		return fmt.Errorf("--root-dir %q: must be an absolute path below /", dir)
	}
	return nil
}
