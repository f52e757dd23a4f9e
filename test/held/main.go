// Command held draws what work costs against the number of tokens held. It reads what the benchmarks print:
//
//	go test -run '^$' -bench 'Queue(Set|Rotate|Remove)|Held' ./rotation ./projector | go run ./test/held --out held.png
//
// and prints the table of docs/performance.md: the median of each benchmark with "held=N" in its name, in nanoseconds.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"image/color"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/spf13/pflag"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "held:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	f := pflag.NewFlagSet("held", pflag.ContinueOnError)
	png := f.String("out", "", "file for the plot, a PNG (default: none)")
	if err := f.Parse(args); err != nil {
		return err
	}
	costs, err := read(in)
	if err != nil {
		return err
	}
	if len(costs) == 0 {
		return errors.New(`no line of a benchmark with "held=N" in its name`)
	}
	printTable(out, costs)
	if *png == "" {
		return nil
	}
	return draw(*png, costs)
}

// costs are nanoseconds of an operation, by what it is and by how many tokens are held.
type costs map[string]map[int]float64

// aLine is a benchmark's name before and behind the number held, and its time.
var aLine = regexp.MustCompile(`^Benchmark(\S+?)/held=(\d+)(?:-\d+)?\s+\d+\s+([0-9.]+) ns/op`)

// read takes the median where a benchmark was run several times.
func read(in io.Reader) (costs, error) {
	all := map[string]map[int][]float64{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		m := aLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		held, err := strconv.Atoi(m[2])
		if err != nil {
			return nil, fmt.Errorf("benchmark %s: %w", m[1], err)
		}
		ns, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, fmt.Errorf("benchmark %s: %w", m[1], err)
		}
		if all[m[1]] == nil {
			all[m[1]] = map[int][]float64{}
		}
		all[m[1]][held] = append(all[m[1]][held], ns)
	}
	c := costs{}
	for what, by := range all {
		c[what] = map[int]float64{}
		for held, times := range by {
			slices.Sort(times)
			c[what][held] = times[len(times)/2]
		}
	}
	return c, lines.Err()
}

// sizes are the numbers held, of all operations.
func (c costs) sizes() []int {
	all := map[int]bool{}
	for _, by := range c {
		for held := range by {
			all[held] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func printTable(out io.Writer, c costs) {
	fmt.Fprint(out, "| held |")
	for _, n := range c.sizes() {
		fmt.Fprintf(out, " %d |", n)
	}
	fmt.Fprint(out, "\n|---|")
	for range c.sizes() {
		fmt.Fprint(out, "---|")
	}
	fmt.Fprintln(out)
	for _, what := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(out, "| %s |", what)
		for _, n := range c.sizes() {
			cell := ""
			if ns, ok := c[what][n]; ok {
				cell = fmt.Sprintf("%.0f", ns)
			}
			fmt.Fprintf(out, " %s |", cell)
		}
		fmt.Fprintln(out)
	}
}

// draw has both axes logarithmic: what is flat is level, and O(log n) bends down.
func draw(file string, c costs) error {
	p := plot.New()
	p.Title.Text = "cost against tokens held"
	p.X.Label.Text, p.Y.Label.Text = "tokens held", "ns"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.BackgroundColor = color.White
	p.Legend.Top, p.Legend.Left = true, true
	for i, what := range slices.Sorted(maps.Keys(c)) {
		var points plotter.XYs
		for _, n := range slices.Sorted(maps.Keys(c[what])) {
			points = append(points, plotter.XY{X: float64(n), Y: c[what][n]})
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("draw %s: %w", what, err)
		}
		line.Color, dots.Color = plotutil.Color(i), plotutil.Color(i)
		dots.Shape = plotutil.Shape(i)
		p.Add(line, dots)
		p.Legend.Add(what, line, dots)
	}
	p.Add(plotter.NewGrid())
	p.Y.Max *= 30 // for the legend
	if err := p.Save(20*vg.Centimeter, 14*vg.Centimeter, file); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return nil
}
