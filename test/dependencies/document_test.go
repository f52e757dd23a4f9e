//go:build dependencies

package dependencies

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/token-projector/token-projector/deploy/licenses"
)

// What the document must show, besides all direct requirements: modules of this many bytes.
const heavy = 100_000

// others is the name of the row for all that have none of their own.
const others = "all others"

// facts are what the document's figures come from.
type facts struct {
	direct  []string // modules that go.mod requires directly
	modules []licenses.Module
	sizes   sizes
}

// row is a line of one of the two tables: of what is in the program (module, licenses, kB, what for), and of what is not
// (module, what for).
type row struct {
	module string
	cells  []string
}

func (r row) inProgram() bool { return len(r.cells) == 4 }

// parse returns nil for a line that is no row.
func parse(line string) *row {
	line = strings.TrimSpace(line)
	cells := strings.Split(strings.Trim(line, "|"), "|")
	if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.TrimSpace(cells[0]) == "Module" {
		return nil
	}
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return &row{strings.Trim(cells[0], "`"), cells}
}

// rows are those of all tables, by module.
func rows(document string) map[string]row {
	found := map[string]row{}
	for line := range strings.Lines(document) {
		if r := parse(line); r != nil {
			found[r.module] = *r
		}
	}
	return found
}

// computed returns what the cells of a row should be: its licenses and kB.
func (f *facts) computed(module string, shown map[string]row) (license string, bytes int64, known bool) {
	ids := map[string]bool{}
	for _, m := range f.modules {
		_, has := shown[m.Path]
		if m.Path != module && (module != others || has) {
			continue
		}
		known = true
		bytes += f.sizes.modules[m.Path]
		if m.Main {
			ids["Apache-2.0"] = true
		}
		for _, id := range m.Licenses() {
			if id != "Google-Patent-License-Golang" {
				ids[id] = true
			}
		}
	}
	return strings.Join(slices.Sorted(maps.Keys(ids)), ", "), bytes, known
}

// faults says where the document and the facts differ.
func (f *facts) faults(document string) []string {
	var found []string
	shown := rows(document)
	inProgram := map[string]bool{others: true}
	for _, m := range f.modules {
		inProgram[m.Path] = true
		if _, has := shown[m.Path]; !has && f.sizes.modules[m.Path] >= heavy {
			found = append(found, fmt.Sprintf("%s is not there, and has %d bytes", m.Path, f.sizes.modules[m.Path]))
		}
	}
	for _, module := range append(f.direct, others) {
		if _, has := shown[module]; !has {
			found = append(found, module+" is not there")
		}
	}
	for module, r := range shown {
		switch {
		case r.inProgram() != inProgram[module]:
			found = append(found, fmt.Sprintf("%s is in the wrong table: in the program: %v", module, inProgram[module]))
		case r.cells[len(r.cells)-1] == "":
			found = append(found, module+" is there for nothing")
		case r.inProgram():
			found = append(found, f.differences(r, shown)...)
		case !slices.Contains(f.direct, module):
			found = append(found, module+" is required no more")
		}
	}
	slices.Sort(found)
	return found
}

// differences of one row's figures. What a compiler changes between two of its versions is none.
func (f *facts) differences(r row, shown map[string]row) []string {
	license, bytes, _ := f.computed(r.module, shown)
	if r.cells[1] != license {
		return []string{fmt.Sprintf("%s: license %q, it is %q", r.module, r.cells[1], license)}
	}
	written, err := strconv.ParseInt(r.cells[2], 10, 64)
	difference := max(written*1000-bytes, bytes-written*1000)
	if err != nil || difference > max(bytes/10, 30_000) {
		return []string{fmt.Sprintf("%s: %q kB, it is %d bytes", r.module, r.cells[2], bytes)}
	}
	return nil
}

// rewritten is the document with the figures and licenses of its first table as they are now.
func (f *facts) rewritten(document string) string {
	var text strings.Builder
	shown := rows(document)
	for line := range strings.Lines(document) {
		r := parse(line)
		if r == nil || !r.inProgram() {
			text.WriteString(line)
			continue
		}
		if license, bytes, known := f.computed(r.module, shown); known {
			r.cells[1], r.cells[2] = license, strconv.FormatInt((bytes+500)/1000, 10)
		}
		text.WriteString("| " + strings.Join(r.cells, " | ") + " |\n")
	}
	return text.String()
}
