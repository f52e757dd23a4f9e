package integration

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestStatus: what the daemon says of itself is as its schema says, whatever state volumes and tokens are in; and the page shows it.
func TestStatus(t *testing.T) {
	t.Parallel()
	schema, err := jsonschema.NewCompiler().Compile("../../docs/status.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, fakeapi.Options{})
	d := w.start()
	good := w.pod("demo", "good", tokenVolume("vault", "vault", 7200))
	w.waitPublished(good)
	w.pod("demo", "waiting", corev1.Volume{Name: "both", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}},
			{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}}},
		},
	}}})
	var text string
	eventually(t, "an error in the status", func() bool {
		text = d.read(t, "/api/v1/status")
		return strings.Contains(text, `"reason"`) && strings.Contains(text, `"refreshDue"`)
	})
	for planted, valid := range map[string]bool{
		text: true,
		strings.Replace(text, `"state":"ready"`, `"state":"well"`, 1):    false,
		strings.Replace(text, `"node"`, `"token":"","node"`, 1):          false,
		strings.Replace(text, `"synced":true`, `"synced":"yes"`, 1):      false,
		strings.Replace(text, `"message"`, `"stack":"","message"`, 1):    false,
		strings.Replace(text, `"audience":"vault"`, `"audience":[1]`, 1): false,
	} {
		value, err := jsonschema.UnmarshalJSON(bytes.NewBufferString(planted))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); (err == nil) != valid {
			t.Errorf("valid is %v, want %v: %v: %s", err == nil, valid, err, planted)
		}
	}
	page := d.read(t, "/")
	for _, part := range []string{"demo/good", "demo/waiting", "ObjectMissing: ", "<svg"} {
		if !strings.Contains(page, part) {
			t.Errorf("no %s in the page", part)
		}
	}
}

// read asks the metrics' address.
func (d *daemon) read(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get("http://" + d.Metrics + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	return string(body)
}
