package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// percentile of sorted durations; of none it is 0.
func percentile(sorted []time.Duration, part float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(part*float64(len(sorted)-1)+0.5)]
}

// seconds prints some percentiles of sorted durations.
func seconds(sorted []time.Duration, parts ...float64) string {
	if len(sorted) == 0 {
		return "none"
	}
	var all []string
	for _, p := range parts {
		all = append(all, fmt.Sprintf("%.3f", percentile(sorted, p).Seconds()))
	}
	return strings.Join(all, ", ")
}

// row is a line of a table, as Markdown has it.
func row(out io.Writer, cells ...string) { fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | ")) }

func printNode(out io.Writer, o *options, all []*nodeFigures) {
	fmt.Fprintf(out, "\nRefreshes watched for %v; idle for %v.\n\n", o.length, (o.length / idle).Round(time.Second))
	line := func(name string, cell func(*nodeFigures) string) {
		cells := []string{name}
		for _, f := range all {
			cells = append(cells, cell(f))
		}
		row(out, cells...)
	}
	line("figure", func(f *nodeFigures) string { return fmt.Sprintf("%d pods", f.pods) })
	fmt.Fprintln(out, strings.Repeat("|---", len(all)+1)+"|")
	line("all tokens on disk after the daemon's start: s, tokens/s, its CPU s", func(f *nodeFigures) string {
		return fmt.Sprintf("%.2f, %.0f, %.2f", f.toDisk.Seconds(), float64(2*f.pods)/f.toDisk.Seconds(), f.projectCPU)
	})
	line("floor, as many TokenRequests by client-go: s, per s; ratio of the above", func(f *nodeFigures) string {
		return fmt.Sprintf("%.2f, %.0f; %.2f", f.floor.Seconds(), float64(2*f.pods)/f.floor.Seconds(), f.toDisk.Seconds()/f.floor.Seconds())
	})
	line("resident MiB: after that, at rest, most ever", func(f *nodeFigures) string {
		return fmt.Sprintf("%s, %s, %s", mib(f.settled.resident), mib(f.rested.resident), mib(f.rested.peak))
	})
	line("at rest: % of a core, wake-ups per minute", func(f *nodeFigures) string {
		return fmt.Sprintf("%.2f, %.0f", 100*f.rested.share(f.settled), f.rested.perMinute(f.settled))
	})
	line("restart: TokenRequests, versions written, s until ready, s until all are adopted", func(f *nodeFigures) string {
		return fmt.Sprintf("%.0f, %.0f, %.2f, %.2f", f.restart.requests, f.restart.written+f.restart.other, f.restart.ready.Seconds(), f.restart.adopted.Seconds())
	})
	line("while refreshes run: lifetime of tokens, s; refreshes seen on disk; per second", func(f *nodeFigures) string {
		return fmt.Sprintf("%.0f; %d; %.1f", shortLife(o.length, f.pods).Seconds(), len(f.refreshed), float64(len(f.lates))/o.length.Seconds())
	})
	line("lateness by the metric, s: 99 % at most", func(f *nodeFigures) string { return fmt.Sprint(f.metricLate) })
	line("lateness by the files, s (below 0 is before 80 %): 50 %, 99 %, worst", func(f *nodeFigures) string {
		return seconds(f.lates, 0.5, 0.99, 1)
	})
	line("POST of a pod that comes then to each of its tokens, s: 50 %, 99 %, worst", func(f *nodeFigures) string {
		return seconds(f.firsts, 0.5, 0.99, 1)
	})
	line("then: resident MiB at the end, most ever; % of a core; CPU ms per refresh", func(f *nodeFigures) string {
		first, last := f.worked[0], f.worked[len(f.worked)-1]
		return fmt.Sprintf("%s, %s; %.1f; %.2f", mib(last.resident), mib(last.peak), 100*last.share(first), 1000*(last.cpu-first.cpu)/float64(max(1, len(f.lates))))
	})
	for _, f := range all {
		if f.degraded {
			fmt.Fprintf(out, "\nWith %d pods, not all volumes were watched for changes: two descriptors and inotify watches each were too many.\n", f.pods)
		}
	}
}

// plotNode draws what the daemon held, and how late refreshes were, over the time in which they ran.
func plotNode(dir string, all []*nodeFigures) error {
	memory, late := plot.New(), plot.New()
	memory.Title.Text, memory.Y.Label.Text = "resident memory while tokens are refreshed and pods come and go", "MiB"
	late.Title.Text, late.Y.Label.Text = "refreshes: time of the swap on disk", "% of the lifetime that it replaced; 80 is the limit"
	memory.Y.Min, late.Y.Min, late.Y.Max = 0, 0, 100
	for i, f := range all {
		begun := f.worked[0].at
		var resident, swaps plotter.XYs
		for _, c := range f.worked {
			resident = append(resident, plotter.XY{X: c.at.Sub(begun).Seconds(), Y: float64(c.resident) / (1 << 20)})
		}
		for _, d := range f.refreshed {
			swaps = append(swaps, plotter.XY{X: d.at.Sub(begun).Seconds(), Y: 80 + 100*d.late.Seconds()/d.life.Seconds()})
		}
		name := fmt.Sprintf("%d pods", f.pods)
		line, err := plotter.NewLine(resident)
		if err != nil {
			return fmt.Errorf("plot %s: %w", name, err)
		}
		dots, err := plotter.NewScatter(swaps)
		if err != nil {
			return fmt.Errorf("plot %s: %w", name, err)
		}
		line.Color, dots.Color, dots.Radius = plotutil.Color(i), plotutil.Color(i), vg.Points(0.5)
		memory.Add(line)
		memory.Legend.Add(name, line)
		late.Add(dots)
		late.Legend.Add(name, dots)
	}
	for name, p := range map[string]*plot.Plot{"memory": memory, "refreshes": late} {
		p.X.Label.Text = "seconds"
		if err := p.Save(24*vg.Centimeter, 12*vg.Centimeter, filepath.Join(dir, name+".png")); err != nil {
			return err
		}
	}
	return nil
}
