package kubelet

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/rotation"
)

// projection is what our side makes of a world.
type projection struct {
	volumes map[string]version
	states  map[string]int // how many volumes are ready, failed, and so on
}

// ours is our side: a Projector that is fed by hand. It lives in a bubble of virtual time, in which "everything that
// is to be done now has been done" can be waited for.
type ours struct {
	root      *projector.Root
	projector *projector.Projector
	world     *world
}

// projectOurs projects one world and then another.
func projectOurs(t *testing.T, dir string, before, after *world) (first, second projection) {
	synctest.Test(t, func(t *testing.T) {
		o := &ours{world: before}
		stop := o.start(t, dir)
		defer stop()
		o.feed(before)
		synctest.Wait()
		first = o.read(t)
		o.world = after
		o.feed(after)
		synctest.Wait()
		if after.issue != before.issue {
			time.Sleep(renewed * time.Second * 80 / 100)
		}
		time.Sleep(sweep)
		synctest.Wait()
		second = o.read(t)
	})
	return first, second
}

// sweep is longer than an old version is kept for slow readers, and than a volume that is failing waits to be tried again then.
const sweep = 30 * time.Second

// start runs the Projector until the returned func is called.
func (o *ours) start(t *testing.T, dir string) (stop func()) {
	t.Helper()
	var err error
	if o.root, err = projector.OpenRoot(t.Context(), dir, nil); err != nil {
		t.Fatal(err)
	}
	o.projector, err = projector.New(projector.Config{NodeName: "node", Root: o.root, Mint: o.mint, NoWatches: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- o.projector.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		o.root.Close()
	}
}

func (o *ours) mint(_ context.Context, r projector.Request) (projector.Minted, error) {
	now := time.Now()
	return projector.Minted{
		Token:    projector.NewToken(o.world.token(r)),
		Lifetime: rotation.Lifetime{Issued: now, Expires: now.Add(time.Duration(r.ExpirationSeconds) * time.Second)},
	}, nil
}

// feed says what the pod wants, and what every object that it needs holds.
func (o *ours) feed(w *world) {
	wish := projector.Desired(w.pod, projector.SelectAll)
	o.projector.Replace([]projector.Wish{wish})
	for _, v := range wish.Volumes {
		for _, source := range v.Sources {
			if source.Object != nil {
				o.projector.Touch(source.Object.Ref, w.data(source.Object.Ref))
			}
		}
	}
}

func (o *ours) read(t *testing.T) projection {
	t.Helper()
	p := projection{volumes: map[string]version{}}
	for name := range o.world.volumes() {
		var err error
		if p.volumes[name], err = readVersion(o.root.Path(projector.Key{PodUID: o.world.pod.UID, Volume: name})); err != nil {
			t.Fatal(err)
		}
	}
	snapshot, ok := o.projector.Snapshot(t.Context())
	if !ok {
		t.Fatal("the Projector does not answer")
	}
	p.states = snapshot.Volumes
	return p
}
