package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestAdvice: the real server's refusals of a list of pods, as test/conformance meets them, and what each advice tells apart.
func TestAdvice(t *testing.T) {
	forbidden := func(group, resource, name, text string) error {
		return apierrors.NewForbidden(schema.GroupResource{Group: group, Resource: resource}, name, errors.New(text))
	}
	const account, pods = `User "system:serviceaccount:token-projector:token-projector" cannot `, ` resource "pods" in API group "" at the cluster scope`
	for name, c := range map[string]struct {
		identity string
		err      error
		says     string // a part that no other case's advice has, unless it is the same; "": no advice
	}{
		"old server, or the gate is off": {impersonateNode, forbidden("", "users", "system:node:n", account+`impersonate resource "users" in API group "" at the cluster scope`), "upgrade it to Kubernetes 1.36"},
		"another wording":                {impersonateNode, forbidden("", "users", "system:node:n", "no"), "upgrade it to Kubernetes 1.36"},
		"no right to do it as the node":  {impersonateNode, forbidden("", "pods", "", account+"impersonate-on:associated-node:list"+pods), "apply the RBAC of deploy"},
		"no right to be the node":        {impersonateNode, forbidden("authentication.k8s.io", "nodes", "*", account+`impersonate:associated-node resource "nodes" in API group "authentication.k8s.io" at the cluster scope`), "apply the RBAC of deploy"},
		"another node":                   {impersonateNode, forbidden("", "pods", "", account+"impersonate-on:arbitrary-node:list"+pods), "spec.nodeName"},
		"no Node authorizer":             {impersonateNode, forbidden("", "pods", "", `User "system:node:n" cannot list`+pods), "--authorization-mode"},
		"a proxy's 403":                  {impersonateNode, forbidden("", "", "", "no"), "may be older than"},
		"wrapped":                        {impersonateNode, fmt.Errorf("list: %w", forbidden("", "users", "system:node:n", "no")), "upgrade it to Kubernetes 1.36"},
		"a kubeconfig":                   {asKubeconfig, forbidden("", "pods", "", `User "jane" cannot list`+pods), "the user of --kubeconfig"},
		"a service account":              {serviceAccount, forbidden("", "pods", "", account+"list"+pods), "may not watch pods"},
		"no server":                      {impersonateNode, errors.New("connection refused"), ""},
		"no credential":                  {impersonateNode, apierrors.NewUnauthorized("no"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := (&options{identity: c.identity, nodeName: "n"}).advice(c.err)
			if got == "" && c.says != "" || got != "" && c.says == "" {
				t.Fatalf("advice %q", got)
			}
			for _, says := range []string{"upgrade it to Kubernetes 1.36", "apply the RBAC of deploy (", "spec.nodeName", "--authorization-mode", "may be older than", "the user of --kubeconfig", "may not watch pods"} {
				if strings.Contains(got, says) != (c.says != "" && strings.HasPrefix(says, c.says)) {
					t.Errorf("advice %q, want %q", got, c.says)
				}
			}
			if c.identity == impersonateNode && got != "" && !(strings.Contains(got, "--identity kubeconfig") && strings.Contains(got, "deploy/overlays/service-account")) {
				t.Errorf("%q does not name the other identities", got)
			}
		})
	}
}

// TestWarnOfIdentity: only for the one that nothing ties to the node.
func TestWarnOfIdentity(t *testing.T) {
	for _, identity := range identities {
		core, seen := observer.New(zapcore.DebugLevel)
		(&options{identity: identity}).warnOfIdentity(zap.New(core))
		warned := seen.FilterMessage(serviceAccountWarning).FilterLevelExact(zapcore.WarnLevel).Len()
		if want := identity == serviceAccount; (warned == 1) != want || seen.Len() != warned {
			t.Errorf("%s: %v", identity, seen.All())
		}
	}
}
