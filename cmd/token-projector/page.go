package main

import (
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"time"

	g "maragu.dev/gomponents"
	"maragu.dev/gomponents/html"

	"github.com/token-projector/token-projector/projector"
)

//go:embed page.css
var styles string

// pagePolicy lets the page have its own styles, and nothing else: no script, no request.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(styles))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// pageRows is how many tokens the page shows at most; the API has them all.
const pageRows = 1000

// pageRow is a token, or a volume without any.
type pageRow struct {
	pod    *projector.PodStatus
	volume *projector.VolumeStatus
	token  projector.TokenStatus
}

// stateDetached is a token's whose volume's directory the containers no longer see, whatever the token's own.
const stateDetached = "detached"

// urgency orders states, the worst first.
var urgency = []string{stateDetached, stateExpired, stateStale, statePending, stateFresh}

func pageRowsOf(s *projector.Status) []pageRow {
	var rows []pageRow
	for i := range s.Pods {
		pod := &s.Pods[i]
		for j := range pod.Volumes {
			v := &pod.Volumes[j]
			for _, t := range v.Tokens {
				rows = append(rows, pageRow{pod, v, t})
			}
			if len(v.Tokens) == 0 {
				rows = append(rows, pageRow{pod, v, projector.TokenStatus{State: statePending}})
			}
		}
	}
	slices.SortStableFunc(rows, func(a, b pageRow) int {
		return cmp.Or(
			cmp.Compare(slices.Index(urgency, a.state()), slices.Index(urgency, b.state())),
			cmp.Compare(a.sound(), b.sound()),
			a.token.Expires.Compare(b.token.Expires))
	})
	return rows
}

// failure is the token's error, or else its volume's; nil: neither has one.
func (r pageRow) failure() *projector.VolumeError { return cmp.Or(r.token.Error, r.volume.Error) }

// state is what is wrong with the token or, worse, its volume.
func (r pageRow) state() string {
	if r.volume.State == stateDetached {
		return stateDetached
	}
	return r.token.State
}

// sound is 0 if something has failed, be the token fresh; else 1.
func (r pageRow) sound() int {
	if r.failure() != nil {
		return 0
	}
	return 1
}

// page is the whole status as a page for people.
func page(a statusAnswer) g.Node {
	return html.Doctype(html.HTML(html.Lang("en"),
		html.Head(
			html.Meta(html.Charset("utf-8")),
			html.Meta(html.Name("viewport"), html.Content("width=device-width, initial-scale=1")),
			html.Meta(g.Attr("http-equiv", "refresh"), html.Content("10")),
			html.TitleEl(g.Text("token-projector on "+a.Node)),
			html.StyleEl(g.Raw(styles)),
		),
		html.Body(
			html.H1(g.Text("token-projector on "+a.Node)),
			html.P(g.Text("Version "+a.Version+", "+a.Phase+". "), html.A(html.Href("metrics"), g.Text("Metrics")), g.Text(", "), html.A(html.Href(statusPath[1:]), g.Text("JSON")), g.Text(".")),
			g.Iff(a.Status != nil, func() g.Node { return pageStatus(a.Status) }),
		),
	))
}

func pageStatus(s *projector.Status) g.Node {
	tokens, volumes, rows := map[string]int{}, map[string]int{}, pageRowsOf(s)
	for _, pod := range s.Pods {
		for _, v := range pod.Volumes {
			volumes[v.State]++
			for _, t := range v.Tokens {
				tokens[t.State]++
			}
		}
	}
	shown := rows[:min(len(rows), pageRows)]
	return g.Group{
		html.P(g.Text("The API server's time is "+stamp(s.Time)+"."), g.If(!s.Synced, g.Text(" The list of pods is not complete yet."))),
		html.H2(g.Text("Tokens")), tiles(tokens, stateFresh, stateStale, stateExpired, statePending),
		html.H2(g.Text("Volumes")), tiles(volumes, "ready", "pending", "failed", stateDetached),
		html.H2(g.Text("Every token")),
		g.If(len(shown) < len(rows), html.P(g.Textf("The %d most urgent of %d; the others are in the JSON.", len(shown), len(rows)))),
		html.Div(html.Class("scroll"), html.Table(
			html.THead(html.Tr(g.Map([]string{"Pod", "Volume", "Path", "Audience", "State", "From issue to expiry", "Refresh in", "Expires in", "Last error"},
				func(name string) g.Node { return html.Th(g.Text(name)) }))),
			html.TBody(g.Map(shown, func(r pageRow) g.Node { return r.row(s.Time) })),
		)),
	}
}

func tiles(counts map[string]int, states ...string) g.Node {
	return html.Ul(g.Map(states, func(state string) g.Node {
		class := state
		if counts[state] == 0 {
			class = "zero"
		}
		return html.Li(html.Class(class), html.B(g.Text(strconv.Itoa(counts[state]))), g.Text(state))
	}))
}

// name is the pod's; its UID if only its directory is known.
func (r pageRow) name() string {
	if r.pod.Name == "" {
		return string(r.pod.UID)
	}
	return r.pod.Namespace + "/" + r.pod.Name
}

func (r pageRow) row(now time.Time) g.Node {
	t := r.token
	refresh, expiry := "–", "–"
	if !t.RefreshDue.IsZero() {
		refresh = span(t.RefreshDue.Sub(now))
	}
	if !t.Expires.IsZero() {
		expiry = span(t.Expires.Sub(now))
	}
	class, state := r.state(), t.State
	if class != state {
		state += ", " + class
	}
	failure := r.failure()
	return html.Tr(
		html.Td(g.Text(r.name())), html.Td(g.Text(r.volume.Name)), html.Td(g.Text(t.Path)), html.Td(g.Text(t.Audience)),
		html.Td(html.Class(class), g.Text(state)), html.Td(html.Class(class), bar(t, now)), html.Td(g.Text(refresh)), html.Td(g.Text(expiry)),
		html.Td(html.Class("error"), g.Iff(failure != nil, func() g.Node { return g.Text(projector.Scrub(failure.Error())) })),
	)
}

// barWidth is the unit of the bars: the whole life of a token.
const barWidth = 1000

// bar is a token's life, as far as it has lived, with marks for now and for the refresh.
func bar(t projector.TokenStatus, now time.Time) g.Node {
	life := t.Expires.Sub(t.Issued)
	if t.Expires.IsZero() || life <= 0 {
		return g.Text("–")
	}
	at := func(then time.Time) float64 {
		return barWidth * min(1, max(0, float64(then.Sub(t.Issued))/float64(life)))
	}
	rect := func(class string, x, width float64) g.Node {
		return g.El("rect", html.Class(class), g.Attr("x", fmt.Sprintf("%.0f", x)), g.Attr("width", fmt.Sprintf("%.0f", width)), g.Attr("height", "60"))
	}
	said := fmt.Sprintf("issued %s, expires %s", stamp(t.Issued), stamp(t.Expires))
	marks := g.Group{rect("track", 0, barWidth), rect("lived", 0, at(now))}
	if !t.RefreshDue.IsZero() {
		said += ", refresh " + stamp(t.RefreshDue)
		marks = append(marks, rect("refresh", min(at(t.RefreshDue), barWidth-8), 8))
	}
	return g.El("svg", g.Attr("viewBox", fmt.Sprintf("0 0 %d 60", barWidth)), g.Attr("preserveAspectRatio", "none"), html.Role("img"),
		g.El("title", g.Text(said)), marks, rect("now", min(at(now), barWidth-8), 8))
}
