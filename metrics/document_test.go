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
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// document is the page that lists every metric, between lines of this form.
const (
	document      = "../docs/metrics.md"
	documentBegin = "<!-- metrics of %s: written by go test ./metrics -update -->\n"
	documentEnd   = "<!-- end of metrics of %s -->\n"
)

// TestDocument holds the page to the code: names, types, labels and help of everything in the registry.
func TestDocument(t *testing.T) {
	m := pedantic()
	exercise(m)
	requestLatency{m.clientRequestTime}.Observe(t.Context(), "GET", url.URL{}, time.Second)
	o := NewObserver("v1.2.3", "abc123", true)
	now := time.Now()
	o.Source(func(time.Time) Observation {
		return Observation{Looked: now, Each: []ObservedToken{{Issued: now, Expires: now}}}
	})
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	for command, r := range map[string]*prometheus.Registry{"run": m.Registry(), "observe": o.registry} {
		want = withTable(t, want, command, r)
	}
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

// withTable is the page with what is in the registry of one command.
func withTable(t *testing.T, page, command string, r *prometheus.Registry) string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	begin, end := fmt.Sprintf(documentBegin, command), fmt.Sprintf(documentEnd, command)
	before, rest, begun := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !begun || !ended {
		t.Fatalf("%s has no place for the metrics of %s", document, command)
	}
	return before + begin + "\n" + tableOf(families) + "\n" + end + after
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
