package prometheus

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the PrometheusRule")

const (
	alertsFile = "../../deploy/prometheus/alerts.yml"
	ruleFile   = "../../deploy/overlays/prometheus-operator/monitor/prometheusrule.yaml"
	runbook    = "../../docs/runbook.md"
	runbookURL = "https://github.com/token-projector/token-projector/blob/main/docs/runbook.md#"
)

// groups are the alerts as a document has them.
type groups struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr string
			Annotations map[string]string
		}
	}
}

func read(t *testing.T, name string, into any) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(text)
}

// alerts are their names.
func alerts(t *testing.T) (names []string) {
	t.Helper()
	var g groups
	read(t, alertsFile, &g)
	for _, group := range g.Groups {
		for _, r := range group.Rules {
			names = append(names, r.Alert)
			if want := runbookURL + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want {
				t.Errorf("%s: runbook_url is %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
			}
		}
	}
	return names
}

// TestRunbook: every alert has its section, and there is none of another.
func TestRunbook(t *testing.T) {
	text, err := os.ReadFile(runbook)
	if err != nil {
		t.Fatal(err)
	}
	var sections []string
	for _, m := range regexp.MustCompile(`(?m)^## (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		sections = append(sections, m[1])
	}
	if want := alerts(t); len(want) == 0 || !slices.Equal(sections, want) {
		t.Errorf("sections %q, alerts %q", sections, want)
	}
}

// TestPrometheusRule: prometheus-operator gets the same alerts.
func TestPrometheusRule(t *testing.T) {
	var want map[string]any
	read(t, alertsFile, &want)
	if *update {
		writeRule(t, want)
	}
	var rule struct{ Spec map[string]any }
	read(t, ruleFile, &rule)
	if d := cmp.Diff(want, rule.Spec); d != "" {
		t.Errorf("%s is not %s; go test ./test/prometheus -update writes it (-want +got):\n%s", ruleFile, alertsFile, d)
	}
}

func writeRule(t *testing.T, spec map[string]any) {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule",
		"metadata": map[string]any{
			"name": "token-projector", "namespace": "token-projector",
			"labels": map[string]string{"app.kubernetes.io/name": "token-projector"},
		},
		"spec": spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	const origin = "# deploy/prometheus/alerts.yml for prometheus-operator; written by go test ./test/prometheus -update\n"
	if err := os.WriteFile(ruleFile, append([]byte(origin), text...), 0o644); err != nil {
		t.Fatal(err)
	}
}
