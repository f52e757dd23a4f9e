package projector

import (
	"io/fs"
	"time"

	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/token-projector/token-projector/atomicwriter"
	"github.com/token-projector/token-projector/metrics"
	"github.com/token-projector/token-projector/rotation"
)

// state is everything the owner knows. Its methods are the transitions: they
// take the time, do no I/O, and leave jobs to be started in jobs.
type state struct {
	node        string
	seed        rotation.Seed      // of the node
	self        atomicwriter.Owner // whom our files belong to by themselves
	rootBorn    time.Time          // local wall clock; zero: unknown
	maxInFlight int
	sweep       time.Duration
	log         *zap.Logger
	metrics     *metrics.Metrics
	published   func(Published)
	events      record.EventRecorder
	// awaitStopped: a pod's directory is removed only after Stopped.
	awaitStopped bool
	lookUp       bool // service accounts can be looked up

	clock    rotation.ServerClock
	now      time.Time     // server's, when it was last asked for
	mono     time.Duration // local, at the same moment
	doubtful bool          // the clock, at the same moment
	outage   rotation.Outage
	pace     rotation.Pace
	slowed   time.Duration    // Mono, when a pressed server last refused a request, which was said; 0: it is not pressed
	crowds   map[string]crowd // by namespace, since its latest answer
	struck   map[string]bool  // namespaces in which a request has failed in the outage that is open
	// refused are the first volumes of which a token was refused since the last success on the node, and refusedAt, by the
	// local clock, is when that began; see refusesAll. refusing: that is what the outage that is open is about.
	refused   map[*volume]bool
	refusedAt time.Duration
	refusing  bool
	synced    bool // the first complete pod list has come

	pods     map[types.UID]*pod
	idle     map[types.UID]bool // seen, and want nothing
	unusable map[types.UID]bool // of pods that cannot be served for it; said
	stopped  map[types.UID]bool // nothing of them runs; see stop
	waiters  map[*waiter]bool
	objects  map[ObjectRef]*object
	accounts map[accountRef]*account

	mints   rotation.Queue[*volume]  // by when a token wants minting
	disks   rotation.Queue[*volume]  // by when a directory wants work
	news    rotation.Queue[*volume]  // by when to tell what is wrong
	held    []want                   // failed in the outage that is open; oldest first
	lookups rotation.Queue[*account] // by when to look it up

	asked   []*mintJob // mints in flight, oldest first
	looking int        // look-ups in flight
	onDisk  int        // disk jobs in flight

	removals rotation.Queue[*pod] // gone; by when to try
	watched  map[int]*volume      // by watched descriptor
	blind    bool                 // some volume could not be watched, which was said, and that they all are was not yet
	watchAt  time.Duration        // Mono, when to try such a volume again
	unowned  bool                 // some owner was refused; said once
	podsErr  string               // why pods cannot be watched; ""
	podsHelp string               // what was said that can be done about it; ""
	faults   troubles             // of the root: volumes and pods suffer; see blame
	unlooked troubles             // failures of look-ups, by label: accounts suffer
	lostAt   time.Duration        // Mono, when events on disk were lost last; 0: never
	stray    map[int]bool         // descriptors of which a hint came before the job that made them ended
	closing  []watchHandle        // watches of volumes that are no longer ours

	// Decided, for Run to carry out and clear.
	jobs      []job
	overtaken []*mintJob // to be cancelled
	watching  []ObjectRef
	released  []ObjectRef
}

// pod is one pod that has, or had, something on disk.
type pod struct {
	wish    Wish
	volumes podVolumes
	gone    bool  // wanted no more: its directory is to be removed
	bare    bool  // only its directory was found, and nothing published in it
	again   *Wish // what is wanted after all, once the jobs in flight have ended

	removing bool   // the job is in flight
	failures int    // of removals, in a row
	parts    int    // of removals, in a row, that only were too much for one job
	fault    string // that the latest failed by; see blame
}

// volume is one volume of one pod.
type volume struct {
	key  Key
	pod  *pod
	wish *Volume

	tokens  []token
	uses    []*object // it is a user of these objects; of one twice, perhaps
	account *account  // and of this one; nil: of none
	busy    bool      // a job is in flight
	hinted  bool      // a hint came meanwhile
	gone    bool      // not wanted any more; forgotten when the job ends
	known   bool      // what is on disk has been read
	whole   bool      // a version is published
	version string    // its name
	dirty   bool      // what is wanted differs from what is published

	files   versionFiles         // the published version
	refused []atomicwriter.Owner // owners that we may not give; few
	stale   []staleVersion
	watch   watchHandle
	triedAt time.Duration // Mono, when its watches were last tried again

	seen        time.Duration // Mono, when the pod was first seen
	since       time.Time     // the same in server time
	verifyAt    time.Time     // server time
	restAt      time.Time     // no disk job that only looks and sweeps before; zero: no old version resists
	mountpoints []string      // that a job has seen to
	linked      bool          // a publish has seen to the links; what is read tells nothing of them
	retryAt     time.Time     // no disk job before; zero: no failure
	failures    int           // of disk jobs, in a row
	parts       int           // of disk jobs, in a row, that only had too much to remove

	pace       time.Duration // of repairs, while somebody keeps altering the volume
	repairedAt time.Time

	detached bool
	err      *VolumeError // as last reported; nil: in order
	said     string       // the reason that stands in the log; "": none
	told     bool         // by an event on the pod
	tellAt   time.Time    // when it is to be told next; zero: there is nothing to tell
	diskErr  *VolumeError
	fault    string // that the latest disk job failed by; see blame
}

// published is one file of the current version. Its bytes are not kept.
type published struct {
	path  string
	sum   [32]byte
	mode  fs.FileMode
	owner atomicwriter.Owner
	from  int // the source that gave it, from 1; or one of the two below
}

// What published.from is for files that were there before us.
const (
	unknownSource = 0  // any
	tokenLike     = -1 // a token source, by the look of it
)

// staleVersion is a version that is current no more, and since when. Readers
// that opened it finish within staleAge.
type staleVersion struct {
	name string
	at   time.Time
}

// token is one token source of a volume.
type token struct {
	source *TokenSource
	seed   rotation.Seed

	// shadowed: a later source gives its path now. It is neither asked for nor missed.
	shadowed bool

	sum   [32]byte          // of the token on disk; of no use with a zero life
	life  rotation.Lifetime // of the token on disk; zero: none
	due   time.Time         // server time; zero with a zero life: at once
	floor time.Time         // no early refresh before
	fresh Token             // minted, not yet on disk
	next  rotation.Lifetime // of fresh
	took  time.Time         // server time when fresh was asked for; it may have come after a long sleep

	uid     types.UID // of the account that the token on disk is of; "": unknown
	nextUID types.UID // the same of fresh
	dead    bool      // the newest, fresh or on disk, is not of the account of that name any more; wants minting at once
	anew    bool      // fresh was minted for that reason, with many others perhaps

	retryAt  time.Time // no attempt before; zero: no failure
	failures int       // in a row
	held     bool      // failed in the outage that is open
	suspect  bool      // failed while others succeeded: backs off alone
	blamed   bool      // failed while others were refused: likewise, until it is refused itself
	err      *VolumeError
}

// object is what volumes are made of beside tokens: a configMap, a secret, trust
// bundles, a node.
type object struct {
	ref   ObjectRef
	users map[*volume]bool
	known bool                // the first answer has come
	data  map[string][]byte   // nil: absent
	sums  map[string][32]byte // of data, as far as they were asked for
	err   string              // why it cannot be read; data is then the last one
	// refused: err is the server's word about this object, not an outage that
	// the tokens will tell of if it lasts.
	refused bool
}

// Spacing of disk work.
const (
	staleAge   = 10 * time.Second // a replaced version stays for slow readers
	sweepEvery = 10 * time.Minute // re-reading a volume whose watches work
	sweepBlind = time.Minute      // and one whose watches could not be set
	hintDelay  = 50 * time.Millisecond
	watchRetry = 2 * time.Second  // between attempts to watch, while some volume is not
	diskRetry  = 5 * time.Second  // at most, between attempts at a volume that cannot be read or published
	maxPace    = 30 * time.Second // between repairs in a storm
	calmAfter  = time.Minute      // without a repair, the storm is over
	// unfinishedPause lets others have the disk between the parts of a removal that is too much for one job.
	unfinishedPause = 200 * time.Millisecond
	maxParts        = 32 // in a row, before the pauses grow as after a failure
	// A pending pod's token competes as if it expired this long after the pod
	// was seen: soon enough to start pods at once, not before a token on disk
	// that dies sooner.
	pendingGrace = time.Minute
)

func newState(c *Config) *state {
	seed := rotation.NewSeed(c.NodeName)
	return &state{
		node: c.NodeName, seed: seed, maxInFlight: c.MaxInFlight, sweep: c.Sweep,
		log: c.Log, metrics: c.Metrics, published: c.Published, events: c.Events, awaitStopped: c.AwaitStopped,
		lookUp:   c.AccountUID != nil,
		outage:   rotation.NewOutage(seed),
		pace:     rotation.NewPace(seed),
		pods:     make(map[types.UID]*pod),
		idle:     make(map[types.UID]bool),
		stopped:  make(map[types.UID]bool),
		waiters:  make(map[*waiter]bool),
		objects:  make(map[ObjectRef]*object),
		accounts: make(map[accountRef]*account),
		unusable: make(map[types.UID]bool),
		unlooked: make(troubles),
		faults:   make(troubles),
		watched:  make(map[int]*volume),
		stray:    make(map[int]bool),
		crowds:   make(map[string]crowd),
		struck:   make(map[string]bool),
	}
}

// sweepOf is how often a volume with these watches is read without a hint.
func (s *state) sweepOf(h watchHandle) time.Duration {
	if h.blind != nil {
		return min(sweepBlind, s.sweep)
	}
	return s.sweep
}

// sweepParts is in how many parts a sweep goes through the volumes.
const sweepParts = 10

// sweepAt is when a volume that has just been looked at is read again without a hint: at the next moment of its part,
// which is within that time. A machine with nothing else to do wakes for a part, not for a volume.
func (v *volume) sweepAt(now time.Time, every time.Duration) time.Time {
	part := time.Duration(v.seed().Phase(sweepParts)) * (every / sweepParts)
	moment := now.Add(-part)
	return now.Add(every - moment.Sub(moment.Truncate(every)))
}

// jump is by how much the server's time may move against the monotonic clock
// before it counts as a step rather than as noise.
const jump = 2 * time.Second

// server is the API server's time at now. When it has jumped since it was last
// asked for, because a local clock was stepped, the machine slept or the server
// put us right, what was to be done so many seconds from then moves along.
func (s *state) server(now rotation.Time) time.Time {
	server := s.clock.Now(now)
	by := server.Sub(s.now) - (now.Mono - s.mono)
	first := s.now.IsZero()
	s.now, s.mono, s.doubtful = server, now.Mono, s.clock.Doubtful(now)
	if by.Abs() > jump && !first {
		s.log.Info("server time moved", zap.Duration("moved_seconds", by))
		s.shift(by, now)
	}
	return server
}

// hear takes a server's time from an answer.
func (s *state) hear(server time.Time, sent, received rotation.Time) {
	s.server(received)
	s.clock.Hear(server, sent, received)
	s.server(received)
}

func (s *state) shift(by time.Duration, now rotation.Time) {
	for _, p := range s.pods {
		for _, v := range p.volumes {
			v.shift(by)
			dropped := v.doubt(s.now)
			if v.gone || p.gone {
				continue
			}
			if dropped {
				s.examine(v, s.now)
			}
			s.plan(v, s.now)
			if !v.tellAt.IsZero() {
				s.tellAt(v, v.tellAt)
			}
		}
		s.settle(p, now)
	}
	for _, a := range s.accounts {
		if !a.busy {
			s.lookAt(a, a.at.Add(by))
		}
	}
}

func (v *volume) shift(d time.Duration) {
	move := func(t *time.Time) {
		if !t.IsZero() {
			*t = t.Add(d)
		}
	}
	move(&v.since)
	move(&v.verifyAt)
	move(&v.retryAt)
	move(&v.restAt)
	move(&v.tellAt)
	move(&v.repairedAt)
	for i := range v.stale {
		move(&v.stale[i].at)
	}
	for i := range v.tokens {
		t := &v.tokens[i]
		move(&t.retryAt)
		if d < 0 { // what was lived through while asleep counts for the token's age
			move(&t.floor)
			move(&t.took)
		}
	}
}

// doubt has tokens minted anew that were issued in the server's future: its
// clock was put back, and nobody accepts them yet. One that waits to be published
// is dropped, and what it replaced is what it was; doubt reports whether there was any.
func (v *volume) doubt(now time.Time) (dropped bool) {
	for i := range v.tokens {
		t := &v.tokens[i]
		if t.life.Issued.After(now.Add(tokenLeeway)) {
			t.due, t.floor = now, now
		}
		if !t.fresh.empty() && t.next.Issued.After(now.Add(tokenLeeway)) {
			t.fresh, t.next, t.nextUID, dropped = Token{}, rotation.Lifetime{}, "", true
			t.dead, t.anew = t.dead || t.anew, false
		}
	}
	return dropped
}
