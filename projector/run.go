package projector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/token-projector/token-projector/metrics"
	"github.com/token-projector/token-projector/rotation"
)

// diskWorkers bounds the disk jobs in flight. A few are enough to keep a slow
// directory from holding up the others.
const diskWorkers = 4

// DefaultMaxInFlight is how many TokenRequests may be in flight at once if
// Config does not say.
const DefaultMaxInFlight = 16

// Config says what a Projector works for and with.
type Config struct {
	NodeName string // required; pods are those with this spec.nodeName
	Root     *Root  // required; the caller closes it after Run
	Mint     Mint   // required
	// AccountUID looks up service accounts, each about every five minutes, to find
	// one that was deleted and made again: its pods' tokens are then minted anew.
	// Nil: they stay the old account's until their refresh.
	AccountUID AccountUID

	// Client watches pods and the objects their volumes name. Nil: the caller
	// feeds Replace, Apply, Forget and Touch itself.
	Client      *Client
	PodSelector labels.Selector // of the pods to take on, once their labels match; nil: all of the node
	Selection   Selection       // "": SelectAll
	MaxInFlight int             // TokenRequests in flight; 0: DefaultMaxInFlight

	// Sweep is how often every volume is read back without a hint that somebody
	// altered it; 0: ten minutes. Volumes that cannot be watched are read at
	// least once a minute.
	Sweep time.Duration
	// NoWatches leaves the disk to the slow sweep: for virtual time, where a
	// blocked read of the kernel's events would stop the clock.
	NoWatches bool
	// Published is called by the owner whenever a new version of a volume has
	// become current: the first one, a renewal, a repair. It is not called for what
	// a restart finds in order, nor when nothing had to be written; to know that a
	// volume is there, WaitReady. It must not block and must not call back: send
	// into a channel with room, say. Nil: nobody is told.
	Published func(Published)
	// AwaitStopped keeps the directory of a pod that is gone until Stopped, for
	// the containers that still run. False: it is removed when the pod is gone.
	AwaitStopped bool

	// Advice says what an operator can do about an error of listing or watching the
	// node's pods; "": nothing that is known. It is logged beside the error, and
	// anew when it has become another. It may be called from any goroutine. Nil: none.
	Advice func(error) string

	// Events tells pods what is wrong with their volumes, and when it no longer is.
	// It must not block, and is to aggregate and limit what it is given, as
	// client-go's does. Nil: nobody is told.
	Events record.EventRecorder

	Clock   rotation.Clock   // nil: the machine's
	Metrics *metrics.Metrics // nil: none
	Log     *zap.Logger      // nil: none
}

// Published says that a version of a volume has become current: the files in
// Root.Path(Key) are now those of its subdirectory Version.
type Published struct {
	Key     Key
	Version string
}

func (c *Config) validate() error {
	switch {
	case c.NodeName == "":
		return errors.New("projector: no node name")
	case c.Root == nil:
		return errors.New("projector: no root")
	case c.Mint == nil:
		return errors.New("projector: no mint")
	case c.MaxInFlight < 0:
		return fmt.Errorf("projector: %d requests in flight", c.MaxInFlight)
	case c.Sweep < 0:
		return fmt.Errorf("projector: sweep every %v", c.Sweep)
	}
	if c.Selection == "" {
		c.Selection = SelectAll
	}
	if c.Selection != SelectAll && c.Selection != SelectUnmounted {
		return fmt.Errorf("projector: unknown selection %q", c.Selection)
	}
	return nil
}

func (c *Config) defaults() {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	if c.Sweep == 0 {
		c.Sweep = sweepEvery
	}
	if c.PodSelector == nil {
		c.PodSelector = labels.Everything()
	}
	if c.Advice == nil {
		c.Advice = func(error) string { return "" }
	}
	if c.Clock == nil {
		c.Clock = rotation.SystemClock()
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
}

// Projector keeps the volumes of one node's pods. New makes it, Run runs it
// once. All other methods may be called from any goroutine: before Run they wait
// for it, afterwards they do nothing.
type Projector struct {
	config  Config
	inbox   chan event
	results chan event

	done chan struct{}
}

// event is something for the owner to take in, by its own hand.
type event func(s *state, now rotation.Time)

// New validates the configuration. It starts nothing.
func New(c Config) (*Projector, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.defaults()
	return &Projector{
		config: c,
		inbox:  make(chan event),
		// Room for every job in flight, so that a worker need not wait for the owner.
		results: make(chan event, c.MaxInFlight+maxLookups+diskWorkers),
		done:    make(chan struct{}),
	}, nil
}

// send hands an event to the owner, unless Run has ended.
func (p *Projector) send(e event) {
	select {
	case p.inbox <- e:
	case <-p.done:
	}
}

// ask hands an event to the owner and waits until it was taken in; false if
// ctx or Run ended first.
func (p *Projector) ask(ctx context.Context, e event) bool {
	answered := make(chan struct{})
	asked := func(s *state, now rotation.Time) {
		e(s, now)
		close(answered)
	}
	select {
	case p.inbox <- asked:
	case <-ctx.Done():
		return false
	case <-p.done:
		return false
	}
	select {
	case <-answered:
		return true
	case <-p.done:
		return false
	}
}

// Replace takes in the complete list of pods; what is not in it is gone. Before
// the first Replace nothing is removed.
func (p *Projector) Replace(wishes []Wish) {
	p.send(func(s *state, now rotation.Time) { s.replace(wishes, now) })
}

// Apply takes in what one pod wants now.
func (p *Projector) Apply(w Wish) {
	p.send(func(s *state, now rotation.Time) { s.apply(w, now) })
}

// Forget takes in that a pod's object is gone.
func (p *Projector) Forget(uid types.UID) {
	p.send(func(s *state, now rotation.Time) { s.forget(uid, now) })
}

// Touch takes in what an object holds; nil data: it does not exist. The
// Projector keeps data. An object that no volume names, or none yet, is ignored:
// tell of a pod first, then of its objects.
func (p *Projector) Touch(ref ObjectRef, data map[string][]byte) {
	p.send(func(s *state, now rotation.Time) { s.touch(ref, data, now) })
}

// Verify has a volume re-read, and repaired if somebody altered it.
func (p *Projector) Verify(k Key) {
	p.send(func(s *state, now rotation.Time) { s.verify(k, now) })
}

// Hear takes in the server's time from any answer; see HearServer. It waits for
// Run, as all the others do: what is heard before must be dropped.
func (p *Projector) Hear(server time.Time, sent, received rotation.Time) {
	p.send(func(s *state, _ rotation.Time) { s.hear(server, sent, received) })
}

// Run projects until ctx ends, then waits for the jobs in flight. It removes
// nothing at the end: what is on disk serves on until the next start. It ends
// with ErrRootReplaced when somebody deletes or replaces the root.
func (p *Projector) Run(ctx context.Context) error {
	found, err := p.config.Root.pods()
	if err != nil {
		close(p.done)
		return cmp.Or(p.config.Root.check(), fmt.Errorf("list the root: %w", err))
	}
	r := &runner{Projector: p, state: newState(&p.config), objects: make(map[ObjectRef]context.CancelFunc)}
	r.state.self, r.state.rootBorn = p.config.Root.owner(), p.config.Root.born()
	r.state.orphans(found, p.config.Clock())
	ctx, cancel := context.WithCancelCause(ctx)
	r.disk = disk{root: p.config.Root, watch: r.openWatcher(ctx)}
	r.lost = func() { cancel(ErrRootReplaced) }
	r.feeds.Go(func() { p.config.Root.watch(ctx, r.lost) })
	r.goWatch(ctx)
	r.loop(ctx)
	close(p.done) // from here on nobody waits for the owner
	cancel(nil)
	r.stop()
	if errors.Is(context.Cause(ctx), ErrRootReplaced) {
		return ErrRootReplaced
	}
	return nil
}

// runner is what Run needs beside the state: the goroutines it has started.
type runner struct {
	*Projector
	state   *state
	disk    disk
	lost    func()         // ends Run: the root was replaced
	workers sync.WaitGroup // jobs
	feeds   sync.WaitGroup // watches
	objects map[ObjectRef]context.CancelFunc
}

// loop is the owner. It reads the time once per turn.
func (r *runner) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var e event
		select {
		case <-ctx.Done():
			return
		case e = <-r.results:
		case e = <-r.inbox:
		case <-timer.C:
		}
		now := r.config.Clock()
		if e != nil {
			e(r.state, now)
		}
		r.state.dispatch(now)
		r.state.answer(now)
		r.start(ctx)
		timer.Reset(r.state.wake(now))
	}
}

// start carries out what the state has decided.
func (r *runner) start(ctx context.Context) {
	s := r.state
	for _, j := range s.jobs {
		ctx, cancel := context.WithCancel(ctx)
		if j.mint != nil {
			j.mint.cancel = cancel
		}
		r.workers.Go(func() {
			defer cancel()
			r.result(r.work(ctx, j))
		})
	}
	for _, j := range s.overtaken {
		j.cancel()
	}
	for _, ref := range s.released {
		if cancel := r.objects[ref]; cancel != nil {
			cancel()
			delete(r.objects, ref)
		}
	}
	for _, ref := range s.watching {
		r.goWatchObject(ctx, ref)
	}
	s.jobs, s.overtaken, s.watching, s.released = s.jobs[:0], nil, s.watching[:0], s.released[:0]
}

// result hands a job's result to the owner, unless it has left.
func (r *runner) result(e event) {
	select {
	case r.results <- e:
	case <-r.done:
	}
}

// work carries out one job and returns its result, for the owner to take in; nil if Run is to end.
func (r *runner) work(ctx context.Context, j job) event {
	switch {
	case j.mint != nil:
		m, err := r.config.Mint(ctx, j.mint.request)
		return func(s *state, now rotation.Time) { s.finishMint(j.mint, m, err, now) }
	case j.lookup != nil:
		ref := j.lookup.account.ref
		uid, err := r.config.AccountUID(ctx, ref.namespace, ref.name)
		return func(s *state, now rotation.Time) { s.finishLookup(j.lookup, uid, err, now) }
	case j.read != nil:
		version, sums, claims, f := r.disk.read(j.read)
		if r.rootless(f.err) {
			return nil
		}
		return func(s *state, now rotation.Time) { s.finishRead(j.read, version, sums, claims, f, now) }
	case j.publish != nil:
		result, f := r.disk.publish(j.publish)
		if r.rootless(f.err) {
			return nil
		}
		return func(s *state, now rotation.Time) { s.finishPublish(j.publish, result, f, now) }
	default:
		err := r.disk.remove(j.remove)
		if r.rootless(err) {
			return nil
		}
		return func(s *state, now rotation.Time) { s.finishRemove(j.remove, err, now) }
	}
}

// rootless reports whether a disk job failed because the root is not there any more, which ends Run: nobody is to hear
// of it volume by volume.
func (r *runner) rootless(err error) bool {
	if err == nil || !errors.Is(r.config.Root.check(), ErrRootReplaced) {
		return false
	}
	r.lost()
	return true
}

// stop waits for every goroutine. Disk jobs run to their end; requests end
// with the context.
func (r *runner) stop() {
	for _, cancel := range r.objects {
		cancel()
	}
	r.workers.Wait()
	r.disk.watch.close()
	r.feeds.Wait()
}
