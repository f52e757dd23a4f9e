package atomicwriter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// owned gives the files an owner and a mode.
func owned(list []File, o Owner, mode fs.FileMode) []File {
	list = slices.Clone(list)
	for i := range list {
		list[i].Owner, list[i].Mode = &o, mode
	}
	return list
}

// TestOwner: owners are exact. Who may not chown gets an error that names the owner, and the old version stays.
func TestOwner(t *testing.T) {
	dir, d := volume(t)
	plain := files("token", "t")
	publish(t, d, Written, plain, at(0))
	publish(t, d, Unchanged, owned(plain, Owner{UID: -1, GID: -1}, 0o644), at(1))
	before := snapshot(t, dir)
	other := owned(plain, Owner{UID: os.Geteuid() + 1234, GID: -1}, 0o600)
	r, err := d.Publish(other, at(2))
	if os.Geteuid() != 0 {
		expectRefused(t, err, Owner{UID: os.Geteuid() + 1234, GID: os.Getegid()})
		expectTree(t, snapshot(t, dir), before)
		return
	}
	check(t, err)
	check(t, d.Sweep(r.Stale))
	got := must(d.Read())(t).Files[0]
	if got.Owner != (Owner{UID: 1234}) || got.Mode != 0o600 {
		t.Errorf("%v %v", got.Owner, got.Mode)
	}
	publish(t, d, Unchanged, other, at(3))
	publish(t, d, Written, plain, at(4))
	expectTree(t, snapshot(t, dir), before)
}

func expectRefused(t *testing.T, err error, want Owner) {
	t.Helper()
	refused, ok := errors.AsType[*OwnerError](err)
	if !ok || refused.Owner != want || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("%v, want that the owner %v was refused", err, want)
	}
}

// TestGroup: with a group, every directory of the version has it and the setgid bit, and so have new files; a wish
// without one goes back. Links belong to the volume directory's owner.
func TestGroup(t *testing.T) {
	dir, d := volume(t)
	self, group := d.self, d.self.GID
	if os.Geteuid() == 0 {
		group = 4321
		check(t, os.Chown(dir, -1, group))
	}
	check(t, os.Chmod(dir, 0o755|fs.ModeSetgid))
	o := at(0)
	o.Group = &group
	wish := owned(files("token", "t", "d/e/f", "f"), Owner{UID: -1, GID: group}, 0o640)
	publish(t, d, Written, wish, o)
	ids := fmt.Sprintf(" %d:%d", self.UID, group)
	expectTree(t, snapshot(t, dir), map[string]string{
		".": "dgrwxr-xr-x" + ids, "VERSION": "dgrwxr-xr-x" + ids, "VERSION/d": "dgrwxr-xr-x" + ids, "VERSION/d/e": "dgrwxr-xr-x" + ids,
		"..data":        "Lrwxrwxrwx" + ids + " -> VERSION <nil>",
		"token":         "Lrwxrwxrwx" + ids + " -> ..data/token <nil>",
		"d":             "Lrwxrwxrwx" + ids + " -> ..data/d <nil>",
		"VERSION/token": "-rw-r-----" + ids + ` "t" <nil>`, "VERSION/d/e/f": "-rw-r-----" + ids + ` "f" <nil>`,
	})
	o.Now = at(1).Now
	publish(t, d, Unchanged, wish, o)
	version := filepath.Join(dir, versions(t, d)[0])
	check(t, os.Chmod(filepath.Join(version, "d"), 0o755))
	o.Now = at(2).Now
	publish(t, d, Written, wish, o)
	publish(t, d, Written, wish, at(3))
	version = filepath.Join(dir, versions(t, d)[0])
	for _, sub := range []string{"", "d", "d/e"} {
		expectMode(t, filepath.Join(version, sub), 0o755)
	}
}

// TestOwnerRefused: whatever capability is missing, the owner is refused instead of being lost, half given, or given
// so that we could not read it back. Nothing changes for readers, and a wish without owners can be published.
func TestOwnerRefused(t *testing.T) {
	const user, group = 1234, 4321
	file := Owner{UID: user, GID: group}
	dirs := Owner{UID: os.Geteuid(), GID: group}
	all := []int{unix.CAP_CHOWN, unix.CAP_FSETID, unix.CAP_DAC_READ_SEARCH}
	for _, tt := range []struct {
		name   string
		keep   []int
		group  bool
		refuse *Owner
	}{
		{"all", all, true, nil},
		{"no group, no FSETID", []int{unix.CAP_CHOWN, unix.CAP_DAC_READ_SEARCH}, false, nil},
		{"no FSETID", []int{unix.CAP_CHOWN, unix.CAP_DAC_READ_SEARCH}, true, &dirs},
		{"no DAC_READ_SEARCH", []int{unix.CAP_CHOWN, unix.CAP_FSETID}, true, &file},
		{"no CHOWN", []int{unix.CAP_FSETID, unix.CAP_DAC_READ_SEARCH}, false, &file},
		{"none", nil, true, &dirs},
	} {
		if os.Geteuid() != 0 && tt.refuse == nil {
			tt.keep, tt.refuse = nil, &file // nothing to keep: an ordinary user is refused
		}
		t.Run(tt.name, func(t *testing.T) {
			dir, d := volume(t)
			plain := files("token", "old", "d/e", "e")
			publish(t, d, Written, plain, at(0))
			before := snapshot(t, dir)
			o := at(1)
			if tt.group {
				o.Group = new(group)
			}
			var err error
			withCapabilities(t, tt.keep, func() { _, err = d.Publish(owned(plain, file, 0o600), o) })
			if tt.refuse == nil {
				check(t, err)
				withCapabilities(t, tt.keep, func() { _, err = d.Settle(o) })
				check(t, err)
				return
			}
			if tt.refuse == &dirs {
				expectSettleRefused(t, dir, tt.keep, o, dirs)
			}
			if os.Geteuid() != 0 && tt.group {
				tt.refuse = &dirs // the directories come first
			}
			expectRefused(t, err, *tt.refuse)
			expectTree(t, snapshot(t, dir), before)
			var r Result
			withCapabilities(t, tt.keep, func() { r, err = d.Publish(plain, at(2)) })
			if err != nil || r.Outcome != Unchanged {
				t.Errorf("without owners: %v %v", r.Outcome, err)
			}
		})
	}
}

// expectSettleRefused: the volume directory itself cannot have the group either, and works on with our own.
func expectSettleRefused(t *testing.T, dir string, keep []int, o Options, want Owner) {
	t.Helper()
	d := reopen(t, dir)
	var err, again error
	withCapabilities(t, keep, func() {
		_, err = d.Settle(o)
		_, again = d.Settle(at(0))
	})
	expectRefused(t, err, want)
	check(t, again)
	expectMode(t, dir, 0o755)
}

// TestSettle: a directory that a runtime made on the way to a subPath mount gets its mode, owner and group; one that is
// right is left alone.
func TestSettle(t *testing.T) {
	dir, d := volume(t)
	check(t, os.Chmod(dir, 0o700))
	want, o := d.self, at(0)
	if os.Geteuid() == 0 {
		want.GID = 4321
		check(t, os.Chown(dir, 1234, 1234))
	}
	o.Group = &want.GID
	id := must(d.Settle(o))(t)
	if id != must(d.ID())(t) {
		t.Error("another directory's ID")
	}
	expectMode(t, dir, 0o755|fs.ModeSetgid)
	var st unix.Stat_t
	check(t, unix.Stat(dir, &st))
	if got := (Owner{UID: int(st.Uid), GID: int(st.Gid)}); got != want {
		t.Errorf("it belongs to %v, want %v", got, want)
	}
	d.hook = func(op, name string, done bool) error { return errFault }
	must(d.Settle(o))(t)
	d.hook = nil
	must(d.Settle(at(0)))(t)
	expectMode(t, dir, 0o755)
}

// withCapabilities runs f on a thread with only these capabilities of root's, which ends with f.
func withCapabilities(t *testing.T, keep []int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no use to others
		defer close(done)
		var data [2]unix.CapUserData
		for _, c := range keep {
			data[c/32].Effective |= 1 << (c % 32)
		}
		for i := range data {
			data[i].Permitted = data[i].Effective
		}
		if os.Geteuid() == 0 {
			done <- unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
		}
		f()
	}()
	for err := range done {
		check(t, err)
	}
}

// TestUnreadableMode: a mode that keeps the owner from reading is exact where a capability reads the file all the same;
// elsewhere the owner may read, so that the file is not lost to the next comparison.
func TestUnreadableMode(t *testing.T) {
	dir, _ := volume(t)
	wish := owned(files("token", "t"), Owner{UID: -1, GID: -1}, 0o044)
	modes := map[bool]fs.FileMode{true: 0o444, false: 0o044}
	for _, poor := range []bool{true, false} {
		if !poor && os.Geteuid() != 0 {
			break // nobody but root has the capability
		}
		var keep []int
		if !poor {
			keep = []int{unix.CAP_DAC_READ_SEARCH}
		}
		var outcomes []Outcome
		withCapabilities(t, keep, func() {
			root, err := OpenRoot(filepath.Dir(dir))
			if err != nil {
				return
			}
			defer root.Close()
			if d, err := root.Open(filepath.Base(dir)); err == nil {
				defer d.Close()
				for n := range 2 {
					r, _ := d.Publish(wish, at(n))
					outcomes = append(outcomes, r.Outcome)
				}
			}
		})
		if !slices.Equal(outcomes, []Outcome{Written, Unchanged}) {
			t.Errorf("without capabilities %v: %v", poor, outcomes)
		}
		expectMode(t, filepath.Join(dir, dataLink, "token"), modes[poor])
	}
}
