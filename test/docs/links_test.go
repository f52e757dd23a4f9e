package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode"
)

var (
	span   = regexp.MustCompile("`[^`\n]*`")
	link   = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	remote = regexp.MustCompile(`^[a-z]+:`)
)

// prose are the lines of a document that are no code: neither in a block nor, without its span, in a line.
func prose(document string) []string {
	var lines []string
	fenced := false
	for line := range strings.Lines(document) {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced = !fenced
		case fenced || strings.HasPrefix(line, "    "):
		default:
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return lines
}

// anchors are the names that GitHub gives to the headings of a document.
func anchors(document string) []string {
	var names []string
	seen := map[string]int{}
	for _, line := range prose(document) {
		text := strings.TrimLeft(line, "#")
		if text == line || !strings.HasPrefix(text, " ") {
			continue
		}
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(text))
		times := seen[name]
		seen[name]++
		if times > 0 {
			name = fmt.Sprintf("%s-%d", name, times)
		}
		names = append(names, name)
	}
	return names
}

// broken are the links of the document called name that lead nowhere in the tree: no file or folder, or no such heading in it.
func broken(tree fs.FS, name string) []string {
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for _, line := range prose(string(text)) {
		for _, match := range link.FindAllStringSubmatch(span.ReplaceAllString(line, ""), -1) {
			if remote.MatchString(match[1]) {
				continue
			}
			if err := leads(tree, name, match[1]); err != nil {
				found = append(found, fmt.Sprintf("%s: %s: %v", name, match[1], err))
			}
		}
	}
	return found
}

// leads is nil if the document called name may link to target.
func leads(tree fs.FS, name, target string) error {
	file, anchor, _ := strings.Cut(target, "#")
	if file == "" {
		file = name
	} else {
		file = path.Join(path.Dir(name), file)
	}
	if _, err := fs.Stat(tree, file); err != nil || anchor == "" {
		return err
	}
	text, err := fs.ReadFile(tree, file)
	if err != nil {
		return err
	}
	if !slices.Contains(anchors(string(text)), anchor) {
		return fmt.Errorf("no such heading in %s", file)
	}
	return nil
}

// TestLinks: links between our documents, and from them to files, lead somewhere.
func TestLinks(t *testing.T) {
	planted := fstest.MapFS{
		"README.md": {Data: []byte("# A (b), `c`\n# Twice\n## Twice\n[a](#a-b-c) [b](docs/a.md) [c](docs/a.md#sub) [d](docs) ![e](e.png)\n" +
			"[f](https://example.org/none) [g](#twice-1) `[h](none)` [`i`](docs/../e.png)\n\n    [j](none)\n\n```\n# k\n[l](none)\n```\n")},
		"docs/a.md":     {Data: []byte("# Top\n\n## Sub\n[a](../README.md#twice) and [b](#sub)\n")},
		"e.png":         {},
		"bin/b.md":      {Data: []byte("[a](none)")},
		"docs/file.md":  {Data: []byte("see [a](b.md)")},
		"docs/out.md":   {Data: []byte("see [a](../../README.md)")},
		"docs/head.md":  {Data: []byte("see [a](a.md#none)")},
		"docs/own.md":   {Data: []byte("# Own\n[a](#k)")},
		"docs/code.md":  {Data: []byte("    # Own\n\n[a](#own)")},
		"docs/image.md": {Data: []byte("![a](e.png)")},
		"docs/label.md": {Data: []byte("[`a`](b)")},
		"docs/dir.md":   {Data: []byte("[a](../docs#top)")},
	}
	wrong := []string{"docs/code.md", "docs/dir.md", "docs/file.md", "docs/head.md", "docs/image.md", "docs/label.md", "docs/out.md", "docs/own.md"}
	names, err := documents(planted)
	if want := append([]string{"README.md", "docs/a.md"}, wrong...); err != nil || !slices.Equal(slices.Sorted(slices.Values(names)), slices.Sorted(slices.Values(want))) {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		if faults := broken(planted, name); (len(faults) == 1) != slices.Contains(wrong, name) || len(faults) > 1 {
			t.Errorf("planted: %s: %q", name, faults)
		}
	}

	tree := os.DirFS(top)
	names, err = documents(tree)
	if err != nil || len(names) < 10 {
		t.Fatalf("%d documents: %v", len(names), err)
	}
	for _, name := range names {
		for _, fault := range broken(tree, name) {
			t.Error(fault)
		}
	}
}
