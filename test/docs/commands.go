package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Command is what a document says to type.
type Command struct {
	Document string // its path from the top of the repository
	Line     int    // of the document, from 1
	Text     string // without the comment at its end; continued lines are one
	Prints   string // what the document shows that it prints; empty: nothing is shown
	Files    []File // what the document shows before it, and after the command before it
}

// File is a file that a document shows and names.
type File struct{ Name, Content string }

// String is where the command is and what it is.
func (c Command) String() string { return fmt.Sprintf("%s:%d: %s", c.Document, c.Line, c.Text) }

// All are the commands of every document.
func All(top string) (all []Command, err error) {
	err = each(top, func(name, text string) error {
		commands, err := Read(name, text)
		all = append(all, commands...)
		return err
	})
	return all, err
}

// each is called for every document below the top of the repository.
func each(top string, f func(name, text string) error) error {
	tree := os.DirFS(top)
	names, err := documents(tree)
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		if err := f(name, string(text)); err != nil {
			return err
		}
	}
	return nil
}

// documents are all documents of the tree, but for what is built or hidden.
func documents(tree fs.FS) ([]string, error) {
	var names []string
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		switch base := path.Base(name); {
		case err != nil:
			return err
		case entry.IsDir() && (base == "bin" || base == "testdata" || len(base) > 1 && base[0] == '.'):
			return fs.SkipDir
		case path.Ext(name) == ".md":
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

// block is what is indented, or between fences.
type block struct {
	line     int    // of its first
	language string // of its fence; empty: the fence names none, or is never closed
	name     string // of a file
	next     bool   // nothing but empty lines is between it and the block before it
	lines    []string
}

const indent = "    "

// Read returns the commands of a document. A fence without a language is an error.
func Read(document, text string) (commands []Command, err error) {
	var files []File
	for _, b := range blocks(text) {
		content := strings.Join(b.lines, "\n") + "\n"
		switch {
		case b.language == "":
			return nil, fmt.Errorf("%s:%d: a fence must be closed, and name its language: sh for commands, text for what they print", document, b.line)
		case b.language == "sh":
			made := b.commands(document)
			if len(made) > 0 {
				made[0].Files, files = files, nil
			}
			commands = append(commands, made...)
		case b.name != "":
			files = append(files, File{b.name, content})
		case b.language == "text" && b.next && len(commands) > 0:
			commands[len(commands)-1].Prints = content
		}
	}
	return commands, nil
}

// blocks takes a document apart; what is indented after an empty line is sh.
func blocks(text string) (found []block) {
	var open *block // the last one, until its end
	empty, next := true, false
	for i, line := range strings.Split(text, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		code, isIndented := strings.CutPrefix(line, indent)
		switch {
		case open != nil && open.language != "indented":
			if !isFence {
				open.lines = append(open.lines, line)
				break
			}
			found, open, next = append(found, *open), nil, true
		case open != nil && isIndented:
			open.lines = append(open.lines, code)
		case isIndented && empty:
			open = &block{line: i + 1, language: "indented", next: next, lines: []string{code}}
		default:
			if open != nil {
				open.language = "sh"
				found, open, next = append(found, *open), nil, true
			}
			if isFence {
				language, name, _ := strings.Cut(fence, " ")
				open = &block{line: i + 2, language: language, name: name, next: next}
			}
			next = next && strings.TrimSpace(line) == ""
		}
		empty = strings.TrimSpace(line) == ""
	}
	if open != nil { // a fence that nobody closes
		open.language = ""
		found = append(found, *open)
	}
	return found
}

var comment = regexp.MustCompile(`\s+#\s.*$`)

// commands are those of a block.
func (b block) commands(document string) (commands []Command) {
	continued := false
	for i, line := range b.lines {
		text, more := strings.CutSuffix(strings.TrimSpace(comment.ReplaceAllString(line, "")), `\`)
		text = strings.TrimSpace(text)
		switch {
		case continued:
			commands[len(commands)-1].Text += " " + text
		case text != "" && !strings.HasPrefix(text, "#"):
			commands = append(commands, Command{Document: document, Line: b.line + i, Text: text})
		}
		continued = more
	}
	return commands
}

// Words takes a command apart as a shell would, into simple commands between |, && and ;, each of words without their quotes.
func Words(text string) (commands [][]string) {
	var words []string
	for _, w := range word.FindAllString(text, -1) {
		switch w {
		case "|", "&&", ";":
			commands, words = append(commands, words), nil
		default:
			words = append(words, strings.NewReplacer("'", "", `"`, "").Replace(w))
		}
	}
	return slices.DeleteFunc(append(commands, words), func(c []string) bool { return len(c) == 0 })
}

var word = regexp.MustCompile(`\|\|?|&&|;|(?:'[^']*'|"[^"]*"|[^\s'"|;&])+`)

// typed are the beginnings of the commands that need nothing but what is built here, or what .ci/run installs: TestTyped types them.
var typed = []string{
	"bin/token-projector", "bin/fake-apiserver", "curl", "openssl", "htpasswd", "grep", "readlink", "go run ./test/fake-apiserver", "go run ./test/fleet", "go doc ./projector",
}

// Typed reports whether TestTyped types a command that begins so.
func Typed(text string) bool {
	return slices.ContainsFunc(typed, func(t string) bool { return text == t || strings.HasPrefix(text, t+" ") })
}

// varies is what differs from one run to the next.
var varies = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|kube-api-access-[a-z0-9]{5}|[0-9]+(\.[0-9]+)?[smh]?`)

// Lacks says which of the lines that the document shows is like none that the command has printed; nil: none. Numbers, and names
// that somebody made up, may be others.
func (c Command) Lacks(out string) error {
	like := func(line string) string { return varies.ReplaceAllString(strings.Join(strings.Fields(line), " "), "N") }
	printed := map[string]bool{}
	for line := range strings.Lines(out) {
		printed[like(line)] = true
	}
	for line := range strings.Lines(c.Prints) {
		if !printed[like(line)] {
			return fmt.Errorf("it does not print %sbut\n%s", line, out)
		}
	}
	return nil
}
