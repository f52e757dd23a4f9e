package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"
)

// print writes what was found in the form that was asked for.
func (o *inspection) print(w io.Writer, found sightings) error {
	switch o.output {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(found)
	case "yaml":
		text, err := yaml.Marshal(found)
		if err != nil {
			return err
		}
		if o.watch {
			text = append([]byte("---\n"), text...)
		}
		_, err = w.Write(text)
		return err
	}
	onTerminal := isTerminal(w)
	if o.watch && onTerminal {
		fmt.Fprint(w, "\x1b[H\x1b[2J") // what was scrolled away stays
	}
	switch {
	case found.Error != "":
		_, err := fmt.Fprintf(w, "%s; looking again\n", found.Error)
		return err
	case len(found.Tokens) == 0:
		of := ""
		if o.only != "" {
			of = fmt.Sprintf(" of %q", o.only)
		}
		_, err := fmt.Fprintf(w, "no projected token%s below %s\n", of, found.Root)
		return err
	}
	return o.table(w, found, onTerminal && os.Getenv("NO_COLOR") == "")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// columns of the table; those of wide come after them, before the state, which
// is the last, so that its colour moves nothing.
var (
	columns     = []string{"POD", "VOLUME", "PATH", "SERVICE ACCOUNT", "AUDIENCE", "AGE", "REFRESH IN", "EXPIRES IN", "MODE", "OWNER"}
	wideColumns = []string{"POD UID", "ISSUED", "EXPIRES", "FILE"}
)

func (o *inspection) table(w io.Writer, found sightings, colour bool) error {
	header := columns
	if o.output == "wide" {
		header = append(columns[:len(columns):len(columns)], wideColumns...)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(header, "\t")+"\tSTATE")
	for _, s := range found.Tokens {
		cells := s.cells(found.Time)
		if o.output == "wide" {
			cells = append(cells, s.PodUID, stamp(s.Issued), stamp(s.Expires), s.File)
		}
		state := coloured(s, colour)
		if s.Error != "" {
			state += ": " + s.Error
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t"+state)
	}
	return t.Flush()
}

func (s sighting) cells(now time.Time) []string {
	pod := s.Namespace + "/" + s.Pod
	if s.Pod == "" {
		pod = s.PodUID
	}
	cells := []string{pod, s.Volume, s.Path, s.ServiceAccount, clip(strings.Join(s.Audiences, ",")), "", "", "", s.Mode, s.Owner}
	if !s.Expires.IsZero() {
		cells[5], cells[6], cells[7] = span(now.Sub(s.Issued)), span(s.RefreshBy.Sub(now)), span(s.Expires.Sub(now))
	}
	for i := range cells {
		if cells[i] == "" {
			cells[i] = "-"
		}
	}
	return cells
}

// span is a duration as kubectl prints it, in whole seconds; what is over is negative.
func span(d time.Duration) string {
	if d <= -time.Second {
		return "-" + duration.HumanDuration(-d)
	}
	return duration.HumanDuration(max(d, 0))
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// coloured is the state: green if all is well, yellow if it will not stay so, red if somebody is without a good token.
func coloured(s sighting, colour bool) string {
	if !colour {
		return s.State
	}
	code := 31
	switch {
	case !s.wrong && s.State == stateFresh:
		code = 32
	case s.State == stateStale, s.State == statePending:
		code = 33
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, s.State)
}
