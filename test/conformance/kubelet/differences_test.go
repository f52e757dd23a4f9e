package kubelet

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"
)

// difference is something that ours does otherwise than the kubelet, on purpose. What has none is to be equal.
type difference struct {
	name, reason string
	// adapt, of a difference in any volume, turns what the kubelet made into what ours is to make.
	adapt  func(tree)
	rare   bool // one pod in some hundreds meets it: only the fixed ones must
	asRoot bool // an ordinary user, who has one user and group to give files to, does not meet it, or hardly ever
}

// Differences in any volume.
var (
	directoryMode = &difference{
		name:   "mode of the volume directory",
		reason: "the kubelet's is a tmpfs's, sticky, which all may write; a read-only mount protects it. Ours is read by others alone.",
		adapt: func(t tree) {
			directory := t["."]
			directory.mode &^= 0o1022
			t["."] = directory
		},
	}
	linkOwner = &difference{
		name: "owner of links",
		reason: "the kubelet gives a link to the user of whichever file it was made for, and to the fsGroup only if it was there " +
			"before. Ours are the directory owner's: kernels that protect links let everybody follow those.",
		adapt: func(t tree) {
			for name, e := range t {
				if e.kind == "link" {
					e.uid, e.gid = t["."].uid, t["."].gid
					t[name] = e
				}
			}
		},
		asRoot: true,
	}
	bundleOrder = &difference{
		name:   "order of trust bundles",
		reason: "the kubelet shuffles them whenever its cache expires, which writes them again for nothing. Ours are sorted.",
		adapt: func(t tree) {
			for name, e := range t {
				e.content = sortCertificates(e.content)
				t[name] = e
			}
		},
	}
)

// Volumes that ours refuses for what their spec says, before it asks for any token.
var (
	conflictingPaths = &difference{
		name: "conflicting paths",
		reason: "a beside a/b can never be. The kubelet finds out only when it writes both, and then removes the whole volume; " +
			"as long as an optional source does not give one of them it accepts the volume.",
	}
	impossiblePath = &difference{
		name:   "impossible path",
		reason: "the kubelet, too, refuses it, but only when a source gives the file.",
	}
	reservedName = &difference{
		name:   "reserved name",
		reason: "./..data is ..data: the kubelet looks at the path before it cleans it, and so lets a pod collide with its own names.",
	}
	twoSpellings = &difference{
		name:   "two spellings",
		reason: "a beside ./a: with the kubelet it is a matter of luck which one is written.",
	}
)

// What ours makes of volumes of which the kubelet makes something else, or nothing.
var (
	spellingOfAKey = &difference{
		name:   "spelling of a key",
		reason: "an object's key a, beside a path ./a: the later source wins; with the kubelet it is a matter of luck.",
	}
	failingSource = &difference{
		name: "failing source",
		reason: "after the first projection, a source that fails keeps what it gave, and the others are renewed. The kubelet writes " +
			"nothing, so that tokens expire, or, if the names are in conflict, removes the whole volume.",
	}
	shadowedToken = &difference{
		name: "shadowed token",
		reason: "a token whose file a later source always overwrites is not asked for. So it is not there, either, while that source " +
			"fails; the kubelet writes nothing then.",
	}
	mountInTheWay = &difference{
		name: "mount in the way",
		reason: "an ephemeral container's mount below the volume, where a file is already: the kubelet makes the directory inside " +
			"the version, or fails. Ours says that it cannot, and goes on with the files.",
		rare: true,
	}
	removedMount = &difference{
		name: "file gone from a mount",
		reason: "a file that a mount's directory hid is not wanted any more: the kubelet tries to remove the directory, and if it cannot, " +
			"tears the whole volume down. Ours leaves it alone.",
		rare: true,
	}
	modeAlone = &difference{
		name:   "mode alone",
		reason: "a mode or owner that changes is applied at once. The kubelet compares content, and applies it when that changes.",
		asRoot: true,
	}
)

var (
	layout         = []*difference{directoryMode, linkOwner, bundleOrder}
	allDifferences = append(slices.Clone(layout), conflictingPaths, impossiblePath, reservedName, twoSpellings,
		spellingOfAKey, failingSource, shadowedToken, mountInTheWay, removedMount, modeAlone)
)

// metDifferences counts in how many places each difference was met.
type metDifferences map[*difference]int

func (m metDifferences) String() string {
	var lines strings.Builder
	for _, d := range allDifferences {
		fmt.Fprintf(&lines, "%6d times: %s: %s\n", m[d], d.name, d.reason)
	}
	return lines.String()
}

// missing are the differences, the rare ones if asked for, that no pod has met: those that are not there any more, or were
// never seen.
func (m metDifferences) missing(rare bool) []string {
	var names []string
	for _, d := range allDifferences {
		if m[d] == 0 && (!d.asRoot || os.Geteuid() == 0) && (!d.rare || rare) {
			names = append(names, d.name)
		}
	}
	return names
}

// sortCertificates sorts the certificates of a trust bundle, and leaves anything else as it is.
func sortCertificates(content string) string {
	var certificates [][]byte
	for block, rest := pem.Decode([]byte(content)); block != nil; block, rest = pem.Decode(rest) {
		certificates = append(certificates, block.Bytes)
	}
	slices.SortFunc(certificates, bytes.Compare)
	var sorted []byte
	for _, der := range certificates {
		sorted = append(sorted, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if len(sorted) != len(content) {
		return content
	}
	return string(sorted)
}
