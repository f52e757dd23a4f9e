// Command publisher does one thing to the volume directory "volume" of a pod directory, and ends. The crash tests kill
// it at every system call.
//
//	publisher publish|inplace DIR [PATH=CONTENT...]
//	publisher remove DIR
//
// inplace is how not to do it: a writer that the tests must catch.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/token-projector/token-projector/atomicwriter"
)

func main() {
	runtime.LockOSThread() // strace counts the calls of each thread for itself
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: publisher publish|inplace|remove DIR [PATH=CONTENT...]")
		os.Exit(2)
	}
	if err := act(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func act(what, dir string, files []string) error {
	pod, err := atomicwriter.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer pod.Close()
	switch what {
	case "publish":
		return publish(pod, files)
	case "inplace":
		return inPlace(filepath.Join(dir, "volume"), files)
	case "remove":
		return pod.Remove("volume")
	}
	return fmt.Errorf("no such act: %s", what)
}

func publish(pod *atomicwriter.Dir, files []string) error {
	volume, err := pod.Mkdir("volume", 0o755)
	if err != nil {
		return err
	}
	defer volume.Close()
	memory, err := volume.Memory()
	if err != nil {
		return err
	}
	var wish []atomicwriter.File
	for _, f := range files {
		path, content, _ := strings.Cut(f, "=")
		wish = append(wish, atomicwriter.File{Path: path, Data: []byte(content), Mode: 0o644})
	}
	result, err := volume.Publish(wish, atomicwriter.Options{Now: time.Now(), Sync: !memory})
	if err != nil {
		return err
	}
	return volume.Sweep(result.Stale)
}

func inPlace(volume string, files []string) error {
	for _, f := range files {
		path, content, _ := strings.Cut(f, "=")
		if err := os.MkdirAll(filepath.Dir(filepath.Join(volume, path)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(volume, path), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
