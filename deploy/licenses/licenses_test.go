package licenses

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const gpl = `This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public
License as published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version.

This program is distributed in the hope that it will be useful, but WITHOUT ANY WARRANTY; without even the implied warranty
of MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE. See the GNU General Public License for more details.

You should have received a copy of the GNU General Public License along with this program. If not, see
<https://www.gnu.org/licenses/>.
`

const isc = `Copyright (c) 2026 the authors

Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED
WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR
CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF
CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`

const own = "\nYou may use this software on Tuesdays, if you have asked us before, and if we have not said no.\n"

func TestTexts(t *testing.T) {
	tests := map[string]struct {
		files map[string]string // of a module whose packages are in a/b and c
		want  string            // names and licenses
		fault string            // part of the error, "" if there is none
	}{
		"a license":           {map[string]string{"LICENSE": isc}, "LICENSE [ISC]", ""},
		"a license and more":  {map[string]string{"license.md": isc, "NOTICE": "by us", "README.md": own}, "NOTICE [], license.md [ISC]", ""},
		"of a package":        {map[string]string{"LICENSE": isc, "a/b/COPYING": isc}, "LICENSE [ISC], a/b/COPYING [ISC]", ""},
		"of a package's top":  {map[string]string{"LICENSE": isc, "a/LICENCE.txt": isc}, "LICENSE [ISC], a/LICENCE.txt [ISC]", ""},
		"of what is not used": {map[string]string{"LICENSE": isc, "d/LICENSE": gpl}, "LICENSE [ISC]", ""},
		"code":                {map[string]string{"LICENSE": isc, "license.go": gpl}, "LICENSE [ISC]", ""},

		"not allowed":              {map[string]string{"LICENSE": gpl}, "", "LICENSE: license GPL-3.0"},
		"not allowed in a package": {map[string]string{"LICENSE": isc, "a/b/LICENSE": gpl}, "LICENSE [ISC]", "a/b/LICENSE: license GPL-3.0"},
		"not allowed at the end":   {map[string]string{"LICENSE": isc + gpl}, "", "LICENSE: license GPL-3.0"},
		"not allowed beside":       {map[string]string{"LICENSE": isc, "LICENSE-GPL": gpl}, "LICENSE [ISC]", "LICENSE-GPL: license GPL-3.0"},
		"unknown":                  {map[string]string{"LICENSE": own}, "", "LICENSE: only 0 %"},
		"unknown at the end":       {map[string]string{"LICENSE": isc + strings.Repeat(own, 5)}, "", "% of it is a known license"},
		"empty":                    {map[string]string{"LICENSE": ""}, "", "LICENSE: only 0 %"},
		"none":                     {map[string]string{"README.md": isc}, "", "there is no license"},
		"only a notice":            {map[string]string{"NOTICE": isc}, "NOTICE []", "there is no license"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			for _, folder := range []string{"a/b", "c", "d"} {
				if err := os.MkdirAll(filepath.Join(top, folder), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for name, content := range test.files {
				if err := os.WriteFile(filepath.Join(top, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			texts, err := textsOf(top, []string{filepath.Join(top, "a", "b"), filepath.Join(top, "c")})
			if test.fault == "" && err != nil || test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
				t.Errorf("fault %v, want %q", err, test.fault)
			}
			var got []string
			for _, text := range texts {
				got = append(got, text.Name+" ["+strings.Join(text.Licenses, " ")+"]")
				if string(text.Content) != test.files[text.Name] {
					t.Errorf("%s has another content", text.Name)
				}
			}
			if slices.Sort(got); strings.Join(got, ", ") != test.want {
				t.Errorf("texts %q, want %q", got, test.want)
			}
		})
	}
}
