package cases

import (
	"fmt"
	"strings"
)

const (
	tableBegin = "<!-- cases: begin -->\n"
	tableEnd   = "<!-- cases: end -->\n"
)

// Table is the list with what each server made of it, in Markdown.
func Table(fake, real Verdicts) string {
	var b strings.Builder
	for group, cases := range groups() {
		fmt.Fprintf(&b, "### %s\n\n| Case | Fake | Real |\n|---|---|---|\n", group)
		for _, c := range cases {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(c.Name), fake[c.FullName()], real[c.FullName()])
		}
		b.WriteString("\n")
	}
	return b.String() + remarks()
}

// groups visits the list by its groups, in order.
func groups() func(yield func(string, []Case) bool) {
	return func(yield func(string, []Case) bool) {
		all := All()
		for len(all) > 0 {
			n := 1
			for n < len(all) && all[n].Group == all[0].Group {
				n++
			}
			if !yield(all[0].Group, all[:n]) {
				return
			}
			all = all[n:]
		}
	}
}

// remarks says why some cases do not run on the fake, or come out otherwise there.
func remarks() string {
	var b strings.Builder
	for _, c := range All() {
		if why := c.RealOnly + c.Differs; why != "" {
			fmt.Fprintf(&b, "- %s: %s.\n", cell(c.FullName()), why)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "### What differs, and what does not run on the fake\n\n" + b.String() + "\n"
}

// cell is s without what would end a cell or begin a tag.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(s) }

// InReadme is the table that a README holds.
func InReadme(readme string) (string, error) {
	_, rest, found := strings.Cut(readme, tableBegin)
	table, _, ended := strings.Cut(rest, tableEnd)
	if !found || !ended {
		return "", fmt.Errorf("no %q followed by %q", tableBegin, tableEnd)
	}
	return table, nil
}

// Replaced is the README with another table.
func Replaced(readme, table string) (string, error) {
	old, err := InReadme(readme)
	if err != nil {
		return "", err
	}
	return strings.Replace(readme, tableBegin+old+tableEnd, tableBegin+table+tableEnd, 1), nil
}
