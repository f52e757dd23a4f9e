package licenses

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/google/licensecheck"
)

// allowed are the licenses that ask for no more than to pass their text on. "Google-Patent-License-Golang" is a grant
// beside a license.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "Google-Patent-License-Golang"}

// minCoverage is how much of a license file must be known, in percent: what pkg.go.dev asks for.
const minCoverage = 75

// Text is a file that the license of a module wants to be passed on with its code.
type Text struct {
	Name     string   // below the module's folder
	Licenses []string // SPDX identifiers, sorted; empty for a notice
	Content  []byte
}

var (
	licenseFile = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying)([-._].*)?$`)
	noticeFile  = regexp.MustCompile(`(?i)^(notice|copyright|patents)(\.(txt|md))?$`)
)

// textsOf reads the texts of a module from its top, the folders of its linked packages, and those between.
func textsOf(top string, packages []string) ([]Text, error) {
	var texts []Text
	var faults []error
	for _, folder := range between(top, packages) {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			text, err := read(top, folder, entry)
			if err != nil {
				faults = append(faults, err)
			}
			if text != nil {
				texts = append(texts, *text)
			}
		}
	}
	if !slices.ContainsFunc(texts, func(t Text) bool { return len(t.Licenses) > 0 }) && len(faults) == 0 {
		faults = append(faults, errors.New("there is no license"))
	}
	return texts, errors.Join(faults...)
}

// between are the folders from the top of a module to its packages, each once, sorted.
func between(top string, packages []string) []string {
	folders := []string{top}
	for _, folder := range packages {
		for ; len(folder) > len(top); folder = filepath.Dir(folder) {
			folders = append(folders, folder)
		}
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}

// read returns nil for a file that is none of the texts. LICENSE.go would be code.
func read(top, folder string, entry fs.DirEntry) (*Text, error) {
	license := licenseFile.MatchString(entry.Name())
	if entry.IsDir() || filepath.Ext(entry.Name()) == ".go" || !license && !noticeFile.MatchString(entry.Name()) {
		return nil, nil
	}
	path := filepath.Join(folder, entry.Name())
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	name, err := filepath.Rel(top, path)
	if err != nil {
		return nil, err
	}
	text := &Text{Name: name, Content: content}
	if license {
		if text.Licenses, err = classify(content); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return text, nil
}

// classify returns the licenses in a text, all of which are allowed.
func classify(content []byte) ([]string, error) {
	coverage := licensecheck.Scan(content)
	var ids []string
	for _, match := range coverage.Match {
		if !slices.Contains(allowed, match.ID) {
			return nil, fmt.Errorf("license %s is not allowed", match.ID)
		}
		ids = append(ids, match.ID)
	}
	if coverage.Percent < minCoverage || len(ids) == 0 {
		return nil, fmt.Errorf("only %.0f %% of it is a known license", coverage.Percent)
	}
	slices.SortFunc(ids, cmp.Compare[string])
	return slices.Compact(ids), nil
}
