package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"path"
	"strings"

	"github.com/token-projector/token-projector/deploy/licenses"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// authorities are Mozilla's, by way of a Go module: the same ones on every machine that builds, and checked by go.sum. One that
// is trusted for some certificates only is left out, because a file cannot say for which.
//
// They are a file, not compiled in, because few daemons use it: in a cluster, and with most kubeconfigs, the server's authority is
// given. The others would pay with memory for a hundred certificates, and could not mount a file of their own in its place.
func authorities() []byte {
	var file bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			pem.Encode(&file, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a Buffer takes everything
		}
	}
	return file.Bytes()
}

// thirdParty is one document of all the licenses and notices of others. Equal texts are there once.
func thirdParty(modules []licenses.Module) []byte {
	var order []string
	owners := map[string][]string{}
	for _, m := range modules {
		for _, text := range m.Texts {
			content := strings.TrimSpace(string(text.Content))
			if owners[content] == nil {
				order = append(order, content)
			}
			owners[content] = append(owners[content], path.Join(m.Path+"@"+m.Version, text.Name))
		}
	}
	var document bytes.Buffer
	document.WriteString("What of others is linked into token-projector, and on which terms. \"std\" is the Go standard library.\n")
	for _, content := range order {
		rule := strings.Repeat("=", 80)
		fmt.Fprintf(&document, "\n%s\n%s\n%s\n\n%s\n", rule, strings.Join(owners[content], "\n"), rule, content)
	}
	return document.Bytes()
}
