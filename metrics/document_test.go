package metrics

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
)

// document is the page that lists every metric, between these lines.
const (
	document      = "../docs/metrics.md"
	documentBegin = "<!-- metrics: written by go test ./metrics -update -->\n"
	documentEnd   = "<!-- end of metrics -->\n"
)

// TestDocument holds the page to the code: names, types, labels and help of everything in the registry.
func TestDocument(t *testing.T) {
	m := pedantic()
	exercise(m)
	requestLatency{m.clientRequestTime}.Observe(t.Context(), "GET", url.URL{}, time.Second)
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(text), documentBegin)
	_, after, ended := strings.Cut(rest, documentEnd)
	if !begun || !ended {
		t.Fatalf("%s has no place for the metrics", document)
	}
	want := before + documentBegin + "\n" + tableOf(families) + "\n" + documentEnd + after
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Errorf("%s is not what the code says; go test ./metrics -update writes it (-want +got):\n%s", document, d)
	}
}

func tableOf(families []*dto.MetricFamily) string {
	var b strings.Builder
	b.WriteString("| name | type | labels | what it says |\n|---|---|---|---|\n")
	for _, f := range families {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), labelsOf(f), strings.ReplaceAll(f.GetHelp(), "<", "&lt;"))
	}
	return b.String()
}

// bounded are labels whose values are all there from the start; of others, only names are known.
var bounded = []string{"state", "result"}

// labelsOf are a family's labels, with the values of those that are few.
func labelsOf(f *dto.MetricFamily) string {
	var names []string
	values := map[string][]string{}
	for _, m := range f.Metric {
		for _, l := range m.Label {
			if !slices.Contains(names, l.GetName()) {
				names = append(names, l.GetName())
			}
			if v := "`" + l.GetValue() + "`"; !slices.Contains(values[l.GetName()], v) {
				values[l.GetName()] = append(values[l.GetName()], v)
			}
		}
	}
	for i, name := range names {
		names[i] = "`" + name + "`"
		if slices.Contains(bounded, name) {
			names[i] += ": " + strings.Join(values[name], " ")
		}
	}
	return strings.Join(names, ", ")
}
