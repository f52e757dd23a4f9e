package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// window is what a peak is measured over, in seconds.
const window = 10

// result is one scenario by one rule.
type result struct {
	scenario
	rule string
	counts
}

// settled is when the first refreshes may begin: the requests of the creation are over.
func (r *result) settled() time.Duration {
	last := r.created
	if r.lives == 0 {
		last = max(last, r.last)
	}
	return min((last + 90*time.Second).Round(time.Second), r.before()-time.Minute)
}

// after is when the event is over.
func (r *result) after() time.Duration { return max(r.event, r.server.outUntil) }

// before is the end of what an event has not touched.
func (r *result) before() time.Duration {
	if r.event > 0 {
		return r.event
	}
	return r.length
}

// heading is that of the table in docs/performance.md, and cells are a result's row of it.
var heading = []string{"what happens", "by", "requests", "all pods had a token after", "peak ÷ mean", "in the minute after", "peak ÷ mean after", "tokens seen expired"}

func (r *result) cells() []string {
	mean := r.mean(r.settled(), r.before()) // an outage has a rate of its own
	cells := []string{r.name, r.rule, grouped(r.total(0, r.length)), r.last.Round(time.Second).String(), ratio(r.peak(r.settled(), r.before(), window) / mean), "", "", grouped(r.expired)}
	if r.expired > 0 {
		cells[7] += fmt.Sprintf(", for %v at most", r.stale.Round(time.Second))
	}
	if r.event > 0 {
		cells[5] = grouped(r.total(r.after(), r.after()+time.Minute))
		cells[6] = ratio(r.peak(r.after(), r.length, window) / mean)
	}
	return cells
}

func ratio(x float64) string {
	if x >= 10 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// grouped writes a number with commas.
func grouped(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", grouped(n/1000), n%1000)
}

// printTable prints the table in Markdown, and what is the least that any rule could reach.
func printTable(w io.Writer, results []*result) error {
	row := func(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
	text := row(heading) + strings.Repeat("|---", len(heading)) + "|\n"
	for _, r := range results {
		text += row(r.cells())
	}
	r := results[len(results)-1]
	rate := float64(r.scenario.pods) / (r.ttl.Seconds() * 0.8)
	text += fmt.Sprintf("\nRequests at random, %.1f a second for %v: peak ÷ mean %s.\n", rate, r.length, ratio(random(rate, r.length)))
	_, err := io.WriteString(w, text)
	return err
}

// random is the peak over the mean of requests that come at random times.
func random(rate float64, length time.Duration) float64 {
	c, at := counts{requests: make([]int32, int(length/time.Second))}, rand.New(rand.NewPCG(1, 1))
	for range int(rate * length.Seconds()) {
		c.requests[at.IntN(len(c.requests))]++
	}
	return c.peak(0, length, window) / c.mean(0, length)
}

// writeCSV writes the requests of each window: its first second, and a column for each rule.
func writeCSV(dir string, results []*result) (err error) {
	file, err := os.Create(filepath.Join(dir, results[0].name+".csv"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := csv.NewWriter(file)
	header := []string{"second"}
	for _, r := range results {
		header = append(header, r.rule)
	}
	_ = w.Write(header) // Flush keeps the error
	for at := time.Duration(0); at+window*time.Second <= results[0].length; at += window * time.Second {
		row := []string{strconv.Itoa(int(at / time.Second))}
		for _, r := range results {
			row = append(row, strconv.Itoa(r.total(at, at+window*time.Second)))
		}
		_ = w.Write(row)
	}
	w.Flush()
	return w.Error()
}

// writePlot draws the rate over the hours, on a logarithmic scale.
func writePlot(dir string, results []*result) error {
	p := plot.New()
	p.Title.Text = results[0].name + ": " + results[0].about
	p.X.Label.Text, p.Y.Label.Text = "hours", "TokenRequests per second"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Legend.Top = true
	for i, r := range results {
		var points plotter.XYs
		for at := time.Duration(0); at+window*time.Second <= r.length; at += window * time.Second {
			if n := r.total(at, at+window*time.Second); n > 0 {
				points = append(points, plotter.XY{X: at.Hours(), Y: float64(n) / window})
			}
		}
		dots, err := plotter.NewScatter(points)
		if err != nil {
			return fmt.Errorf("plot %s: %w", r.rule, err)
		}
		dots.Radius, dots.Color = vg.Points(0.7), plotutil.Color(i)
		p.Add(dots)
		p.Legend.Add(r.rule, dots)
	}
	return p.Save(24*vg.Centimeter, 12*vg.Centimeter, filepath.Join(dir, results[0].name+".png"))
}
