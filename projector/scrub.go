package projector

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a text that is not ours, in bytes.
const (
	maxMessage = 512      // within an error of ours
	maxText    = 4 << 10  // in a log line
	maxScanned = 64 << 10 // what is looked at
)

// What credentials look like in a text. A JWT begins with {" in base64; two long parts with a dot between them may be
// the rest of one, unless they are a name. The base64 of a JWT is one as well, and so is what follows Bearer.
var (
	credential = regexp.MustCompile(`(?:eyJ|ZXlK)[A-Za-z0-9+/_=-]{13,}(?:\.[A-Za-z0-9_-]*)*|[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]*)?`)
	authorized = regexp.MustCompile(`(?i)\b(bearer|basic)((?:\s|%20|\+)+)[A-Za-z0-9._~+/=-]{16,}`)
)

// Scrub makes a text that is not ours, such as what an API server or a webhook says, fit for a log or a terminal: what
// looks like a bearer token is "[token]", what cannot be seen is a space, and there are at most 4 KiB of it.
func Scrub(text string) string { return scrubTo(maxText, text) }

// scrub is Scrub for what becomes part of an error.
func scrub(text string) string { return scrubTo(maxMessage, text) }

func scrubTo(bound int, text string) string {
	text = strings.Map(printable, cut(text, maxScanned))
	if strings.ContainsFunc(text, unicode.IsUpper) { // else nothing is found that is not let be; most texts are names
		text = credential.ReplaceAllStringFunc(text, func(found string) string {
			if strings.ToLower(found) == found {
				return found // the name of a host, a pod or a version; a part of a JWT is not all in lower case
			}
			return redacted
		})
	}
	if strings.ContainsAny(text, " +%") { // one of them is part of what is looked for
		text = authorized.ReplaceAllString(text, "$1$2"+redacted)
	}
	if short := cut(text, bound); short != text {
		return short + "…"
	}
	return text
}

// cut is what fits of a text, without half a character at the end.
func cut(text string, bound int) string {
	if len(text) <= bound {
		return text
	}
	for bound > 0 && !utf8.RuneStart(text[bound]) {
		bound--
	}
	return text[:bound]
}

// printable maps what would move the cursor, turn the text around or not be seen to a space. What is no UTF-8 comes as
// a mark.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return ' '
}
