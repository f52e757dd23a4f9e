//go:build browser

package browser

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/token-projector/token-projector/test/daemontest"
	"github.com/token-projector/token-projector/test/fakeapi"
)

var screenshots = flag.String("screenshots", "", "directory for a screenshot in each theme; none without")

func TestMain(m *testing.M) { os.Exit(daemontest.Main(m)) }

const (
	few  = 8
	many = 1000
)

// TestPage: in a browser, with and without scripts, in either theme, the page has each token with its bar, its styles are applied, and nothing
// is asked for or complained about.
func TestPage(t *testing.T) {
	d := start(t, few)
	for _, theme := range []string{"light", "dark"} {
		for _, noScripts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, without scripts %v", theme, noScripts), func(t *testing.T) {
				b := open(t)
				b.do(t, send(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: noScripts}),
					send(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
						Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
					}),
					chromedp.EmulateViewport(1600, 900), chromedp.Navigate("http://"+d.Metrics+"/"), chromedp.WaitVisible(table))
				shot := answer(t, b, chromedp.FullScreenshot(100))
				b.wantQuiet(t, "/")
				b.wantTokens(t, few+2) // the two of the pod that waits
				b.wantTheme(t, theme)
				if *screenshots != "" && !noScripts {
					if err := os.WriteFile(filepath.Join(*screenshots, theme+".png"), shot, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// TestPageOfMany: a thousand tokens are one page; how long it takes is told, and not judged.
func TestPageOfMany(t *testing.T) {
	d := start(t, many)
	b := open(t)
	begin := time.Now()
	b.do(t, chromedp.Navigate("http://"+d.Metrics+"/"), chromedp.WaitVisible(table))
	t.Logf("a page of %d tokens is there after %v", many, time.Since(begin).Round(time.Millisecond))
	b.wantTokens(t, many)
	b.wantQuiet(t, "/")
}

// TestComplaintsAreHeard: what wantQuiet would overlook, it would overlook here.
func TestComplaintsAreHeard(t *testing.T) {
	d := start(t, 0)
	b := open(t)
	b.do(t, chromedp.Navigate("http://"+d.Metrics+"/"), chromedp.WaitVisible(chromedp.CSS("h1")),
		chromedp.Evaluate[chromedp.Void](`document.body.insertAdjacentHTML("beforeend", "<img src=/planted.png><p style='color: red'>x</p>"); console.error("planted")`))
	daemontest.Eventually(t, "the browser's complaints", func() bool {
		said, _ := b.said()
		return strings.Contains(said, "planted") && strings.Contains(said, "Content Security Policy") && strings.Count(said, "\n") >= 3
	})
}

// start runs a daemon whose pods have so many tokens, and one more that waits for a configMap.
func start(t *testing.T, tokens int) *daemontest.Process {
	t.Helper()
	api, err := fakeapi.Start(fakeapi.Options{Node: daemontest.Node})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.Close)
	if err := api.AddNamespace("demo"); err != nil {
		t.Fatal(err)
	}
	for i := range tokens / 2 {
		create(t, api, fmt.Sprint("web-", i), corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: "vault", Path: "token", ExpirationSeconds: new(int64(600 + 60*i)),
		}})
	}
	if tokens == few {
		create(t, api, "waits", corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "missing"}}},
			corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}})
	}
	d := daemontest.Start(t, api, daemontest.MemoryDir(t))
	daemontest.Eventually(t, "all tokens", func() bool {
		for _, m := range d.Scrape()["token_projector_tokens"].GetMetric() {
			if m.GetLabel()[0].GetValue() == "fresh" {
				return int(m.GetGauge().GetValue()) >= tokens
			}
		}
		return false
	})
	return d
}

func create(t *testing.T, api *fakeapi.Server, name string, sources ...corev1.VolumeProjection) {
	t.Helper()
	_, err := fakeapi.Create(api, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "demo", Name: name},
		Spec: corev1.PodSpec{
			NodeName: daemontest.Node, Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes: []corev1.Volume{{Name: "vault", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// browser is a page of Chromium.
type browser struct {
	ctx context.Context

	mu         sync.Mutex
	complaints strings.Builder // a line each
	asked      []string        // URLs
}

func open(t *testing.T) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // which root cannot have
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{ctx: ctx}
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	b.do(t, send(network.Enable, network.EnableParams{}), send(log.Enable, cdp.Empty{}), send(runtime.Enable, cdp.Empty{}))
	return b
}

func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		fmt.Fprintln(&b.complaints, e.Entry.Text, e.Entry.URL)
	case *runtime.EventConsoleAPICalled:
		fmt.Fprintf(&b.complaints, "console: %s\n", e.Args[0].Value)
	case *runtime.EventExceptionThrown:
		fmt.Fprintln(&b.complaints, e.ExceptionDetails.Text)
	case *network.EventRequestWillBeSent:
		b.asked = append(b.asked, e.Request.URL)
	}
}

func (b *browser) said() (complaints string, asked []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.complaints.String(), b.asked
}

// table is what the page's tokens are in.
var table = chromedp.CSS("table")

// send is a command of the protocol.
func send[P any](command cdp.Command[P, cdp.Empty], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, command, params)
		return err
	})
}

func (b *browser) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	answer(t, b, chromedp.Steps(steps...))
}

// answer is what comes of an action, within a minute.
func answer[T any](t *testing.T, b *browser, a chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	value, err := chromedp.Run(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// wantQuiet is that the browser has complained of nothing, and asked for one path and, by itself, an icon.
func (b *browser) wantQuiet(t *testing.T, path string) {
	t.Helper()
	complaints, asked := b.said()
	for line := range strings.Lines(complaints) {
		if !strings.Contains(line, "favicon.ico") {
			t.Errorf("the browser says: %s", line)
		}
	}
	for _, url := range asked {
		if !strings.HasSuffix(url, path) && !strings.HasSuffix(url, "/favicon.ico") {
			t.Errorf("the browser asked for %s", url)
		}
	}
	if len(asked) == 0 {
		t.Error("the browser has asked for nothing")
	}
}

// wantTokens is a row for each token, and a bar of a real size in each that has one.
func (b *browser) wantTokens(t *testing.T, rows int) {
	t.Helper()
	html := answer(t, b, chromedp.OuterHTML(table))
	if got := strings.Count(html, "<tr>") - 1; got != rows {
		t.Errorf("%d rows, want %d", got, rows)
	}
	if !strings.Contains(html, "demo/web-0") {
		t.Error("no row of demo/web-0")
	}
	if rows > few && rows < many && !strings.Contains(html, "ObjectMissing") {
		t.Error("no error of the pod that waits")
	}
}

// wantTheme is the colour of the page's paper, as the browser has drawn it.
func (b *browser) wantTheme(t *testing.T, theme string) {
	t.Helper()
	b.do(t, send(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{}))
	colour := answer(t, b, chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
	bar := answer(t, b, chromedp.Evaluate[string](`getComputedStyle(document.querySelector("svg")).width`))
	if want := map[string]string{"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[theme]; colour != want {
		t.Errorf("the paper is %s, want %s", colour, want)
	}
	if bar == "0px" || bar == "" || bar == "auto" {
		t.Errorf("a bar is %q wide", bar)
	}
}
