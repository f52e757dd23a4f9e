//go:build e2e

package e2e

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/token-projector/token-projector/test/daemontest"
)

// handleEnv carries a handle, TYPE:HEX, to a copy of this program, which opens it in the directory that handleDirEnv names.
const (
	handleEnv    = "E2E_HANDLE"
	handleDirEnv = "E2E_HANDLE_DIR"
)

// TestOpenByHandle: the base's capabilities do not open a file by its handle, which needs no path: DAC_READ_SEARCH does, and with
// it, as in the overlay observe, a container reaches all of a file system of which it has mounted any part. Here the part and the file are
// siblings.
func TestOpenByHandle(t *testing.T) {
	if os.Getenv(handleEnv) != "" {
		openByHandle(t)
		return
	}
	t.Parallel()
	around := daemontest.MemoryDir(t)
	mounted, file := filepath.Join(around, "mounted"), filepath.Join(around, "secret")
	check(t, os.Mkdir(mounted, 0o700))
	check(t, os.WriteFile(file, []byte("of the node"), 0o600))
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, file, 0)
	check(t, err)
	env := fmt.Sprintf("%s=%d:%x", handleEnv, handle.Type(), handle.Bytes())
	for _, tt := range []struct {
		keep []string
		want string
	}{
		{capabilities(t, manifest), "refused"},
		{append(capabilities(t, manifest), "DAC_READ_SEARCH"), "of the node"},
		{capabilities(t, observeManifest), "of the node"},
	} {
		command := append(under(tt.keep), os.Args[0], "-test.run=^TestOpenByHandle$", "-test.v")
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = append(os.Environ(), env, handleDirEnv+"="+mounted, "TOKEN_PROJECTOR_BINARY=none")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "by handle: "+tt.want) {
			t.Errorf("with %q: %v\n%s\nwant %q", tt.keep, err, out, tt.want)
		}
	}
}

// openByHandle prints what is in the file.
func openByHandle(t *testing.T) {
	kind, text, _ := strings.Cut(os.Getenv(handleEnv), ":")
	var typ int32
	_, err := fmt.Sscan(kind, &typ)
	check(t, err)
	bytes, err := hex.DecodeString(text)
	check(t, err)
	dir, err := os.Open(os.Getenv(handleDirEnv))
	check(t, err)
	defer dir.Close()
	fd, err := unix.OpenByHandleAt(int(dir.Fd()), unix.NewFileHandle(typ, bytes), unix.O_RDONLY)
	if errors.Is(err, unix.EPERM) {
		fmt.Println("by handle: refused")
		return
	}
	check(t, err)
	content, err := io.ReadAll(os.NewFile(uintptr(fd), "secret"))
	check(t, err)
	fmt.Printf("by handle: %s\n", content)
}
