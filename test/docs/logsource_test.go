package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// logging are the packages of the program.
var logging = []string{"atomicwriter", "cmd/token-projector", "metrics", "projector", "rotation"}

// fieldKinds are the fields that a line may have: no zap.Any, which would print whatever it is given.
var fieldKinds = map[string]string{"zap.String": "text", "zap.Error": "text", "zap.Int": "number", "zap.Duration": "seconds"}

var (
	levels    = []string{"Error", "Warn", "Info", "Debug"}
	snakeCase = regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	ofPods    = []string{"namespace", "pod", "pod_uid"}
)

// said is a log line as the source has it, wherever it is written.
type said struct {
	level, message string
	keys           []string
}

// logs is what the source of packages logs.
type logs struct {
	lines  map[string]said   // by message
	keys   map[string]string // the kind of each key
	faults []string

	constants map[string]string        // of the package that is being read
	functions map[string]*ast.FuncDecl // a method by the name of its receiver, too: v.fields
	position  func(ast.Node) token.Position
	keysOf    []string // of the line that is being read
}

func (l *logs) fault(n ast.Node, format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf("%s: %s", l.position(n), fmt.Sprintf(format, args...)))
}

// read takes in a package, of these sources by name.
func (l *logs) read(sources map[string]string) error {
	set := token.NewFileSet()
	l.constants, l.functions = map[string]string{}, map[string]*ast.FuncDecl{}
	l.position = func(n ast.Node) token.Position { return set.Position(n.Pos()) }
	var files []*ast.File
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		f, err := parser.ParseFile(set, name, sources[name], parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
		ast.Inspect(f, l.declare)
	}
	for _, f := range files {
		ast.Inspect(f, l.find)
	}
	return nil
}

// declare notes the constants and functions that lines are made of.
func (l *logs) declare(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		for _, spec := range n.Specs {
			if v, ok := spec.(*ast.ValueSpec); ok && n.Tok == token.CONST {
				for i, name := range v.Names[:len(v.Values)] {
					l.constants[name.Name] = l.text(v.Values[i])
				}
			}
		}
	case *ast.FuncDecl:
		name := n.Name.Name
		if n.Recv != nil && len(n.Recv.List[0].Names) > 0 {
			name = n.Recv.List[0].Names[0].Name + "." + name
		}
		l.functions[name] = n
	}
	return true
}

// text is what a constant expression says; "": it is none.
func (l *logs) text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, _ := strconv.Unquote(e.Value)
		return text
	case *ast.Ident:
		return l.constants[e.Name]
	case *ast.BinaryExpr:
		if x, y := l.text(e.X), l.text(e.Y); e.Op == token.ADD && x != "" && y != "" {
			return x + y
		}
	}
	return ""
}

// callee is how a function is called: zap.String, append, v.fields.
func callee(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		if of, ok := e.X.(*ast.SelectorExpr); ok {
			return of.Sel.Name + "." + e.Sel.Name
		}
		return callee(e.X) + "." + e.Sel.Name
	}
	return ""
}

// find takes in a line, if it is one. For that every logger must have a name that tells.
func (l *logs) find(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.Field:
		if p, ok := n.Type.(*ast.StarExpr); ok && callee(p.X) == "zap.Logger" {
			for _, name := range n.Names {
				if strings.ToLower(name.Name) != "log" {
					l.fault(n, "a logger is to be called log, not %s", name.Name)
				}
			}
		}
	case *ast.CallExpr:
		of, level, _ := strings.Cut(callee(n.Fun), ".")
		switch {
		case strings.ToLower(of) != "log":
			if slices.Contains(levels, level) && len(n.Args) > 0 && l.text(n.Args[0]) != "" {
				l.fault(n, "this looks like a line of a logger that is not called log")
			}
		case level == "Named", level == "WithOptions":
		case !slices.Contains(levels, level):
			l.fault(n, "log.%s is not known here", level)
		default:
			l.line(n, level)
		}
	}
	return true
}

// line takes in a line.
func (l *logs) line(n *ast.CallExpr, level string) {
	s := said{level: strings.ToLower(level), message: l.text(n.Args[0])}
	if s.message == "" {
		l.fault(n, "the message is no constant")
	}
	l.keysOf = nil
	for _, arg := range n.Args[1:] {
		l.fields(arg)
	}
	s.keys = l.keysOf
	pod := slices.ContainsFunc(s.keys, func(k string) bool { return k == "pod" || k == "pod_uid" || k == "volume" })
	for _, key := range ofPods {
		if pod && !slices.Contains(s.keys, key) {
			l.fault(n, "a line about a pod or volume without %s", key)
		}
	}
	if before, ok := l.lines[s.message]; ok && (before.level != s.level || !slices.Equal(before.keys, s.keys)) {
		l.fault(n, "the message is there before, with another level or keys")
	}
	l.lines[s.message] = s
}

// fields takes in the fields that an expression makes.
func (l *logs) fields(e ast.Expr) {
	switch e := e.(type) {
	case *ast.CompositeLit:
		for _, element := range e.Elts {
			l.fields(element)
		}
	case *ast.CallExpr:
		name := callee(e.Fun)
		switch made := l.functions[name]; {
		case fieldKinds[name] != "":
			l.field(e, name)
		case name == "append":
			for _, arg := range e.Args {
				l.fields(arg)
			}
		case made != nil:
			ast.Inspect(made.Body, func(n ast.Node) bool {
				if r, ok := n.(*ast.ReturnStmt); ok {
					l.fields(r.Results[0])
				}
				return true
			})
		default:
			l.fault(e, "%s: not known here, so that nobody can tell which fields it makes", name)
		}
	default:
		l.fault(e, "fields are to be made in the call of the log, or in a function that is called there")
	}
}

func (l *logs) field(e *ast.CallExpr, name string) {
	key := "error"
	if name != "zap.Error" {
		key = l.text(e.Args[0])
	}
	kind := fieldKinds[name]
	if !snakeCase.MatchString(key) {
		l.fault(e, "the key %q is not in snake_case", key)
	}
	if strings.HasSuffix(key, "_seconds") != (kind == "seconds") {
		l.fault(e, "the key %q is %s: those of durations, and only those, end in _seconds", key, kind)
	}
	if before, ok := l.keys[key]; ok && before != kind {
		l.fault(e, "the key %q is %s here and %s elsewhere", key, kind, before)
	}
	if slices.Contains(l.keysOf, key) {
		l.fault(e, "the key %q twice in one line", key)
	}
	l.keys[key] = kind
	l.keysOf = append(l.keysOf, key)
}
