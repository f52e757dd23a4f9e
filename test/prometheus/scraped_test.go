//go:build prometheus

package prometheus

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/token-projector/token-projector/test/daemontest"
)

const dashboardFile = "../../deploy/prometheus/dashboard.json"

// TestScraped: a real Prometheus scrapes run and observe, evaluates each alert, and answers each query of the dashboard with something.
func TestScraped(t *testing.T) {
	w := newWorld(t)
	prom := startPrometheus(t, w)
	daemontest.Eventually(t, "two scrapes of both", func() bool {
		return len(query(t, prom, `count_over_time(up{job="token-projector"}[1m]) >= 3 and up == 1`)) == 2
	})
	if got := query(t, prom, `token_projector_tokens{planted="true"}`); len(got) != 0 {
		t.Errorf("a query for nothing is answered with %v", got)
	}
	for _, q := range queries(t) {
		// Not just at once: a scrape that comes late leaves nothing for a moment.
		daemontest.Eventually(t, "an answer to "+q, func() bool { return len(query(t, prom, q)) > 0 })
	}
	daemontest.Eventually(t, "an evaluation of every alert", func() bool {
		rules, err := prom.Rules(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		evaluated := 0
		for _, group := range rules.Groups {
			for _, r := range group.Rules {
				alert := r.(promv1.AlertingRule)
				if alert.Health == promv1.RuleHealthBad || alert.State == "firing" {
					t.Fatalf("%s: %s, %s %s", alert.Name, alert.State, alert.Health, alert.LastError)
				}
				if alert.Health == promv1.RuleHealthGood {
					evaluated++
				}
			}
		}
		return evaluated == len(alerts(t))
	})
}

// startPrometheus runs one that scrapes the world each second, and ends with the test.
func startPrometheus(t *testing.T, w *world) promv1.API {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n"+
		"- job_name: token-projector\n  static_configs: [{targets: [%q, %q]}]\n", rules, w.run.Metrics, w.observe)
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	cmd := exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	t.Cleanup(func() { // when it has ended
		log.Close()
		if said, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("prometheus: %s", said)
		}
	})
	daemontest.Background(t, cmd)
	client, err := api.NewClient(api.Config{Address: "http://" + address})
	if err != nil {
		t.Fatal(err)
	}
	prom := promv1.NewAPI(client)
	daemontest.Eventually(t, "Prometheus serves", func() bool {
		_, err := prom.Config(t.Context())
		return err == nil
	})
	return prom
}

// freeAddress is one on loopback that nobody listens on just now: Prometheus does not say which it picked itself.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func query(t *testing.T, prom promv1.API, q string) model.Vector {
	t.Helper()
	value, warnings, _, err := prom.Query(t.Context(), q, time.Now())
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%s: %v, %v", q, err, warnings)
	}
	return value.(model.Vector)
}

// mayBeEmpty are queries that nothing answers while all is well.
var mayBeEmpty = []string{"token_projector_volume_errors"}

// queries are those of all panels, as Grafana would send them. What may be empty is asked in a form that never is.
func queries(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "1m")
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			q := variables.Replace(target.Expr)
			if strings.Contains(q, "$") || len(p.Targets) == 0 {
				t.Errorf("%s: %s", p.Title, q)
			}
			for _, name := range mayBeEmpty {
				if strings.Contains(q, name) {
					q = "(" + q + ") or vector(0)"
				}
			}
			all = append(all, q)
		}
	}
	if len(all) < 15 {
		t.Fatalf("only %d queries", len(all))
	}
	return all
}
