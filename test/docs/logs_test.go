package docs

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the tables of docs/logs.md; what is said of each row stays")

// table is a table of the page, with what the page says of each row now.
func table(page, head string, rows []string) (text string, faults []string) {
	told := map[string]string{}
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		last := len(cells) - 1
		told[strings.TrimSpace(strings.Join(cells[:last], " | "))] = strings.TrimSpace(cells[last])
	}
	text = head + "\n" + strings.Repeat("|---", strings.Count(head, " | ")+1) + "|\n"
	for _, row := range rows {
		if told[row] == "" {
			faults = append(faults, "nothing is said of: "+row)
		}
		text += "| " + row + " | " + told[row] + " |\n"
	}
	return text, faults
}

// maxMessage is how much of a message is shown.
const maxMessage = 160

// page is the document as the source has it.
func (l *logs) page(before string) (string, []string) {
	var keys, lines []string
	for key, kind := range l.keys {
		keys = append(keys, fmt.Sprintf("`%s` | %s", key, kind))
	}
	slices.Sort(keys)
	for _, level := range levels {
		var those []string
		for _, s := range l.lines {
			if s.level == strings.ToLower(level) {
				message := s.message
				if len(message) > maxMessage {
					message = message[:strings.LastIndexByte(message[:maxMessage], ' ')] + " …"
				}
				those = append(those, fmt.Sprintf("%s | %s | %s", s.level, message, cmp.Or(strings.Join(s.keys, " "), "–")))
			}
		}
		slices.Sort(those)
		lines = append(lines, those...)
	}
	intro, rest, _ := strings.Cut(before, "\n## Keys\n")
	ofKeys, ofLines, _ := strings.Cut(rest, "\n## Lines\n")
	keyTable, faults := table(ofKeys, "| key | kind | what it is |", keys)
	lineTable, more := table(ofLines, "| level | message | keys | what it tells, and what to do |", lines)
	return intro + "\n## Keys\n\n" + keyTable + "\n## Lines\n\n" + lineTable, append(faults, more...)
}

func newLogs() *logs { return &logs{lines: map[string]said{}, keys: map[string]string{}} }

// TestLogs holds docs/logs.md to the source: every message with its level and keys, also of those that no test brings about, and
// every key with its kind. It holds the source to the rules of the page, too.
func TestLogs(t *testing.T) {
	l := newLogs()
	for _, folder := range logging {
		files, err := filepath.Glob(filepath.Join(top, folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		sources := map[string]string{}
		for _, file := range files {
			if text, err := os.ReadFile(file); err != nil {
				t.Fatal(err)
			} else if !strings.HasSuffix(file, "_test.go") {
				sources[file] = string(text)
			}
		}
		if err := l.read(sources); err != nil {
			t.Fatal(err)
		}
	}
	document := filepath.Join(top, "docs", "logs.md")
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	want, faults := l.page(string(text))
	for _, fault := range append(l.faults, faults...) {
		t.Error(fault)
	}
	if len(l.lines) < 20 || len(l.keys) < 10 {
		t.Errorf("only %d lines with %d keys were found", len(l.lines), len(l.keys))
	}
	if *update {
		if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if d := gocmp.Diff(want, string(text)); d != "" {
		t.Errorf("%s is not what the source says; go test ./test/docs -update writes it (-want +got):\n%s", document, d)
	}
}

// TestLogsPlanted: each breach of the rules is noticed, and so is a page that does not hold a line, or tells nothing of it.
func TestLogsPlanted(t *testing.T) {
	const good = `package p
const said = "it " + "begins"
func (v *volume) fields() []zap.Field {
	return []zap.Field{zap.String("namespace", v.a), zap.String("pod", v.b), zap.String("pod_uid", v.c), zap.String("volume", v.d)}
}
func (s *state) f(log *zap.Logger) {
	s.config.Log.Info(said, append(v.fields(), zap.Error(err))...)
	%s
}
`
	for line, want := range map[string]int{
		`s.log.Warn("w", zap.Int("n", 1), zap.Duration("late_seconds", d))`: 0,
		`s.log.Warn("w", zap.String("podUID", u))`:                          1,
		`s.log.Warn("w", zap.Duration("late", d))`:                          1,
		`s.log.Warn("w", zap.Int("late_seconds", d))`:                       1,
		`s.log.Warn("w", zap.Int("namespace", 1))`:                          1,
		`s.log.Warn("w", zap.Any("token", v))`:                              1,
		`s.log.Warn("w", zap.Error(err), zap.String("error", e))`:           1,
		`s.log.Warn("w", zap.String("volume", v))`:                          3,
		`s.log.Warn("w", zap.String("namespace", n), zap.String("pod", p))`: 1,
		`s.log.Warn("w"+of, zap.Error(err))`:                                1,
		`s.log.Warn("w", fields...)`:                                        1,
		`s.log.Warn("w", p.fields()...)`:                                    1,
		`s.log.Warn("it begins", append(v.fields(), zap.Error(err))...)`:    1,
		`s.log.With(zap.Error(err)).Info("w")`:                              2,
		`l := log.Named("x"); l.Error("w", zap.Any("token", v))`:            1,
		`lg := s.log; lg.Info("w")`:                                         1,
		`zap.L().Warn("w")`:                                                 1,
		`var logger struct { other *zap.Logger }`:                           1,
	} {
		l := newLogs()
		if err := l.read(map[string]string{"p.go": fmt.Sprintf(good, line)}); err != nil {
			t.Fatal(err)
		}
		if len(l.faults) != want {
			t.Errorf("%s: %d faults, want %d: %q", line, len(l.faults), want, l.faults)
		}
	}
	l := newLogs()
	if err := l.read(map[string]string{"p.go": fmt.Sprintf(good, "")}); err != nil {
		t.Fatal(err)
	}
	page, faults := l.page("# Logs\n\n## Keys\n\n## Lines\n")
	if len(faults) != len(l.keys)+1 || !strings.Contains(page, "| info | it begins | namespace pod pod_uid volume error |  |\n") {
		t.Errorf("%d faults of an empty page, which becomes:\n%s", len(faults), page)
	}
	told := strings.ReplaceAll(page, " |  |\n", " | told |\n") + "| info | never said | – | told |\n"
	again, faults := l.page(told)
	if len(faults) > 0 || strings.Contains(again, "never said") || strings.Count(again, "| told |") != len(l.keys)+1 {
		t.Errorf("%q; it becomes:\n%s", faults, again)
	}
}
