package main

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const printed = `goos: linux
BenchmarkQueueSet/held=100-2         	 1000	        61.5 ns/op	       0 B/op	       0 allocs/op
BenchmarkQueueSet/held=100-2         	 1000	        900 ns/op
BenchmarkQueueSet/held=100           	 1000	        64 ns/op
BenchmarkQueueSet/held=100000-2      	 1000	        128 ns/op
BenchmarkHeld/refresh/held=100-2     	 2	     57253 ns/op	   16205 B/op	     121 allocs/op
BenchmarkDue-2   	 1000	 5 ns/op
ok  	rotation	1.0s
`

func TestTableAndPlot(t *testing.T) {
	var out bytes.Buffer
	file := filepath.Join(t.TempDir(), "held.png")
	if err := run([]string{"--out", file}, strings.NewReader(printed), &out); err != nil {
		t.Fatal(err)
	}
	want := `| held | 100 | 100000 |
|---|---|---|
| Held/refresh | 57253 |  |
| QueueSet | 64 | 128 |
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if drawn, err := png.Decode(f); err != nil || drawn.Bounds().Dx() < 100 {
		t.Errorf("the plot: %v, %v", drawn, err)
	}
}

func TestNothingToDraw(t *testing.T) {
	if err := run(nil, strings.NewReader("BenchmarkDue-2 1 5 ns/op\nok\n"), &bytes.Buffer{}); err == nil {
		t.Error("nothing is an answer")
	}
	if err := run([]string{"--out", "/nowhere/held.png"}, strings.NewReader(printed), &bytes.Buffer{}); err == nil {
		t.Error("no plot, and no error")
	}
}
