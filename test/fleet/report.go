package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"text/tabwriter"
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
func (r *result) settled() time.Duration { return r.created + 90*time.Second }

// figures are a result's columns.
func (r *result) figures() []string {
	mean := r.mean(r.settled(), r.before()) // an outage has a rate of its own
	cells := []string{
		r.name, r.rule, strconv.Itoa(r.total(0, r.length)), fmt.Sprintf("%.1f", mean),
		fmt.Sprintf("%.2f", r.peak(r.settled(), r.before(), window)/mean), "", "", strconv.Itoa(r.expired), r.stale.Round(time.Second).String(),
	}
	if r.event > 0 {
		cells[5] = strconv.Itoa(r.total(r.after(), r.after()+time.Minute))
		cells[6] = fmt.Sprintf("%.2f", r.peak(r.after(), r.length, window)/mean)
	}
	return cells
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

var columns = []string{"scenario", "rule", "requests", "mean/s", "peak/mean", "in the minute after", "peak/mean after", "expired", "longest"}

func printTable(w io.Writer, results []*result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells []string) {
		for _, cell := range cells {
			fmt.Fprintf(t, "%s\t", cell)
		}
		fmt.Fprintln(t)
	}
	row(columns)
	for _, r := range results {
		row(r.figures())
	}
	return t.Flush()
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
