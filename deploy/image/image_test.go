package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/token-projector/token-projector/deploy/licenses"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The file holds each authority that is trusted without a condition, and no other.
func TestAuthorities(t *testing.T) {
	rest, got := authorities(), map[string]bool{}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil || !authority.IsCA {
			t.Errorf("%v is no authority: %v", authority, err)
		}
		got[string(block.Bytes)] = true
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		t.Errorf("%d bytes are no certificate", len(rest))
	}
	conditional := 0
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			conditional++
		}
		if got[string(root.Certificate)] != (root.Constraint == nil) {
			t.Errorf("an authority with a condition (%v) is in the file: %v", root.Constraint != nil, got[string(root.Certificate)])
		}
	}
	if conditional == 0 || len(got) < 50 {
		t.Errorf("%d authorities, %d with a condition: this test shows nothing", len(got), conditional)
	}
}

func TestThirdParty(t *testing.T) {
	got := string(thirdParty([]licenses.Module{
		{Path: "example.com/a", Version: "v1.0.0", Texts: []licenses.Text{
			{Name: "LICENSE", Content: []byte("Do as you like.\n")}, {Name: "x/NOTICE", Content: []byte("By us.\n")},
		}},
		{Path: "example.com/ours", Main: true},
		{Path: "std", Version: "go1", Texts: []licenses.Text{{Name: "LICENSE", Content: []byte("\nDo as you like.")}}},
	}))
	rule := "================================================================================\n"
	want := `What of others is linked into token-projector, and on which terms. "std" is the Go standard library.` + "\n\n" +
		rule + "example.com/a@v1.0.0/LICENSE\nstd@go1/LICENSE\n" + rule + "\nDo as you like.\n\n" +
		rule + "example.com/a@v1.0.0/x/NOTICE\n" + rule + "\nBy us.\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Whoever builds, with whatever umask, makes the same modes and times.
func TestSettle(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"token-projector": 0o700, "LICENSE": 0o666, "etc/file": 0o600} {
		if err := os.WriteFile(filepath.Join(root, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	want := time.Unix(1_700_000_000, 0)
	if err := settle(root, want); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]uint32{
		".": 0o40755, "token-projector": 0o100755, "LICENSE": 0o100644, "etc": 0o40755, "etc/file": 0o100644,
	} {
		var stat syscall.Stat_t
		if err := syscall.Stat(filepath.Join(root, name), &stat); err != nil {
			t.Fatal(err)
		}
		if stat.Mode != mode || stat.Mtim.Sec != want.Unix() || stat.Mtim.Nsec != 0 {
			t.Errorf("%s: mode %o, time %v; want %o, %v", name, stat.Mode, stat.Mtim, mode, want)
		}
	}
}
