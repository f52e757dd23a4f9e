package projector

import (
	"context"
	"net/http"
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/rotation"
)

// AccountUID looks up the UID of a service account. It returns within a bounded
// time whatever the server does. An error that is a *MintError says more; any
// other counts as no answer.
type AccountUID func(ctx context.Context, namespace, name string) (types.UID, error)

// NewAccountUID returns an AccountUID that asks through c, a client for the core
// v1 group, for what the server has in its cache, and gives up after timeout.
func NewAccountUID(c rest.Interface, timeout time.Duration) AccountUID {
	return func(ctx context.Context, namespace, name string) (types.UID, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		var account corev1.ServiceAccount
		err := c.Get().Namespace(namespace).Resource("serviceaccounts").Name(name).
			Param("resourceVersion", "0").MaxRetries(0).Do(ctx).Into(&account)
		if err != nil {
			return "", clientError(ctx, err)
		}
		return account.UID, nil
	}
}

// Spacing of look-ups. A node may not watch service accounts
// (plugin/pkg/auth/authorizer/node/node_authorizer.go), so each is looked up
// now and then, at a phase of its own: they never come together.
const (
	// lookupEvery leaves a quarter of a minute of the five in which a new
	// account's token is to be on disk: for the look-up, the request, the publish.
	lookupEvery = 5*time.Minute - 15*time.Second
	// lookupGrace is for how long after an account's first pod was seen the
	// server's cache may not have the account yet.
	lookupGrace = 5 * time.Second
	// lookupOutage puts one off that falls into an outage, which is not for it to end.
	lookupOutage = time.Minute
	// maxRefusals doubles the pause that often: an API server that lets no node
	// look is asked each 38 minutes.
	maxRefusals = 3
	maxLookups  = 4 // in flight, apart from TokenRequests: a hung one delays no token
)

// accountRef names a service account.
type accountRef struct{ namespace, name string }

// account is a service account of which volumes have tokens. It is forgotten
// when its turn comes and it has no users: pods that come and go cause no more
// look-ups than one that stays.
type account struct {
	ref   accountRef
	users map[*volume]bool
	alike [][]Source // of its volumes, those that came last; see share
	at    time.Time  // server time of the next look-up
	busy  bool       // one is in flight

	gone     bool          // it does not exist
	uid      types.UID     // as last looked up; "": never
	told     time.Duration // Mono, when gone or uid was looked up
	refuted  types.UID     // a uid of the cache that a token requested later belied
	refusals int           // in a row
	unlooked string        // how its latest look-up failed, by label; "": it did not
}

type lookupJob struct {
	account *account
	sent    rotation.Time
}

// joinAccount notes the volume as a user of its pod's account, if it has tokens.
func (s *state) joinAccount(v *volume, now rotation.Time) {
	if !s.lookUp {
		return
	}
	if v.wish.Err != nil { // it has no tokens, or none any more
		s.leaveAccount(v)
		return
	}
	ref := accountRef{v.pod.wish.Namespace, v.pod.wish.ServiceAccount}
	a := s.accounts[ref]
	if a == nil {
		a = &account{ref: ref, users: make(map[*volume]bool)}
		s.accounts[ref] = a
		first := rotation.NewSeed(s.node, ref.namespace, ref.name).Phase(lookupEvery - lookupGrace)
		s.lookAt(a, s.server(now).Add(lookupGrace+first))
	}
	a.users[v], v.account = true, a
	v.wish.Sources = a.share(v.wish.Sources)
}

// maxAlike is how many kinds of volumes an account's pods may have of which each is kept once.
const maxAlike = 4

// share returns sources that are the same as these, and another volume's already, if there are any lately. Nobody changes
// them, and those that admission injects are the same in all pods of an account.
func (a *account) share(sources []Source) []Source {
	for _, known := range a.alike {
		if reflect.DeepEqual(known, sources) {
			return known
		}
	}
	if len(a.alike) == maxAlike {
		a.alike = slices.Delete(a.alike, 0, 1)
	}
	a.alike = append(a.alike, sources)
	return sources
}

func (s *state) leaveAccount(v *volume) {
	if v.account != nil {
		delete(v.account.users, v)
		v.account = nil
	}
}

func (s *state) lookAt(a *account, at time.Time) {
	a.at = at
	s.lookups.Set(a, at, at)
}

// lookNext takes the account whose turn it is; false if it is nobody's.
func (s *state) lookNext(now rotation.Time) bool {
	server := s.server(now)
	a, ok := s.lookups.Pop(server)
	switch {
	case !ok:
		return false
	case len(a.users) == 0:
		delete(s.accounts, a.ref)
		s.noteUnlooked(a, "200", nil)
	case s.outage.Open():
		s.lookAt(a, server.Add(lookupOutage))
	default:
		a.busy = true
		s.looking++
		s.jobs = append(s.jobs, job{lookup: &lookupJob{account: a, sent: now}})
	}
	return true
}

// finishLookup takes in the answer to a lookupJob. Only an answer is heeded: a
// look-up that fails changes nothing.
func (s *state) finishLookup(j *lookupJob, uid types.UID, err error, now rotation.Time) {
	s.looking--
	a := j.account
	a.busy = false
	if err == nil && uid == "" {
		err = refuse("no UID in it")
	}
	code, label := http.StatusOK, "200"
	if err != nil {
		failed := asMintError(err)
		code, label = failed.Code, failed.label()
	}
	s.metrics.AccountLookup(label)
	s.lookAgain(a, code, now.Mono-j.sent.Mono, now)
	switch code {
	case http.StatusOK:
		s.heedUID(a, uid, now)
	case http.StatusNotFound:
		s.heedGone(a, true, now)
	}
	s.noteUnlooked(a, label, err)
}

// lookAgain plans the next look-up, that long after this one was sent.
func (s *state) lookAgain(a *account, code int, took time.Duration, now rotation.Time) {
	if code == http.StatusForbidden {
		a.refusals = min(a.refusals+1, maxRefusals)
	} else {
		a.refusals = 0
	}
	s.lookAt(a, s.server(now).Add(max(lookupEvery<<a.refusals-took, 0)))
}

// heedUID has tokens of another account of this name minted anew, all at once:
// nobody accepts them.
func (s *state) heedUID(a *account, uid types.UID, now rotation.Time) {
	s.heedGone(a, false, now)
	if uid == a.refuted {
		return
	}
	a.uid = uid
	dead := 0
	for v := range a.users {
		if n, changed := v.follow(uid); changed {
			dead += n
			s.replan(v, now)
		}
	}
	if dead > 0 {
		s.log.Info("service account was made anew; requesting its pods' tokens again", append(a.fields(), zap.Int("tokens", dead))...)
	}
}

// follow marks the volume's tokens as dead, or not, by the UID of their
// account, and returns how many have died and whether anything has changed.
func (v *volume) follow(uid types.UID) (died int, changed bool) {
	for i := range v.tokens {
		t := &v.tokens[i]
		newest := t.uid
		if !t.fresh.empty() {
			newest = t.nextUID
		}
		dead := newest != "" && newest != uid
		if dead && !t.dead {
			died++
		}
		changed = changed || dead != t.dead
		t.dead = dead
	}
	return died, changed
}

// heedGone takes in whether the account is there. Its tokens stay in any case.
func (s *state) heedGone(a *account, gone bool, now rotation.Time) {
	a.told = now.Mono
	if a.gone == gone {
		return
	}
	a.gone = gone
	for v := range a.users {
		s.replan(v, now)
	}
}

// heedMint takes in of which account a token is that has just been minted. The
// server asks its storage for it, not its cache: what was requested after a
// look-up knows better.
func (s *state) heedMint(v *volume, t *token, uid types.UID, sent time.Duration, now rotation.Time) {
	a, wasDead := v.account, t.dead
	t.nextUID, t.dead, t.anew = uid, false, t.anew || wasDead
	if a == nil {
		return
	}
	after := sent >= a.told
	if a.gone && after {
		s.heedGone(a, false, now)
	}
	switch {
	case !wasDead || uid == "" || uid == a.uid:
	case after:
		a.refuted = a.uid
		s.log.Info("the server's cache is behind: a new token is of another service account than was looked up", a.fields()...)
	default: // it was under way when the account was looked up
		t.dead = true
	}
}

// noteUnlooked says of each kind of failure, by label, once that accounts cannot be looked up, and once that none is left that
// cannot for that.
func (s *state) noteUnlooked(a *account, label string, err error) {
	if label == "200" || label == "404" { // an answer, too
		label = ""
	}
	was := a.unlooked
	begun, ended := s.unlooked.change(&a.unlooked, label)
	if begun {
		s.log.Warn("service account cannot be looked up; should it be made anew, its tokens stay the old one's until their refresh. Said once for all",
			append(a.fields(), zap.String("code", label), zap.String("error", asMintError(err).Error()))...)
	}
	if ended {
		s.log.Info("no look-up of a service account fails so any more", zap.String("code", was))
	}
}

// err is what is wrong with the volumes of the account; nil if nothing is known.
func (a *account) err() *VolumeError {
	if a == nil || !a.gone {
		return nil
	}
	return volumeErrorf(ReasonMissing, "service account %s/%s does not exist, so that nobody accepts its tokens; create it anew", a.ref.namespace, a.ref.name)
}

func (a *account) fields() []zap.Field {
	return []zap.Field{zap.String("namespace", a.ref.namespace), zap.String("service_account", a.ref.name)}
}
