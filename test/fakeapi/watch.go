package fakeapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// writeTimeout is how long a watcher may take to read what is there before it is cut.
	writeTimeout = 30 * time.Second
	// lastBookmark is sent this long before the end of a watch.
	lastBookmark = 2 * time.Second
)

// stream is one watch while it is served. It reads the table's log at its own pace, so it never holds up the store;
// when the log has been trimmed beyond its position it ends, and the client comes back.
type stream struct {
	*call
	table *table
	query *query
	pos   uint64 // the last resource version that was looked at: at first that of the time of the request
	cut   <-chan struct{}
	mute  <-chan struct{}
	frame bytes.Buffer
	wire  io.Writer // puts each frame's length before it, where the media type wants that
}

// errCut ends a stream without a word.
var errCut = errors.New("watch cut")

func (c *call) watch(t *table) error {
	q, err := c.options(t)
	if err != nil {
		return err
	}
	st := &stream{call: c, table: t, query: q, wire: c.out.StreamSerializer.Framer.NewFrameWriter(c.w), cut: c.s.cut.wait(), mute: c.s.mute.wait()}
	st.pos, _ = locked(c.s, func() (uint64, error) { return c.s.store.rv, nil })
	contentType := c.out.MediaType
	if contentType != runtime.ContentTypeJSON {
		contentType += ";stream=watch"
	}
	c.begin(http.StatusOK, contentType)
	if c.fault.Action == Garble {
		_, _ = st.wire.Write(garbage(c.out)) // as in call.send
	}
	c.interrupt()
	if err := st.run(); err != nil && !errors.Is(err, errCut) {
		st.sendError(err) // after the headers an error is an event
	}
	return nil
}

// run sends the initial events, if any are due, and then what happens until the watch ends. Nil and errCut are ends without a word.
func (st *stream) run() error {
	if err := st.start(); err != nil {
		return err
	}
	timeout := st.timeout()
	ctx, cancel := context.WithTimeout(st.r.Context(), timeout)
	defer cancel()
	bookmark := time.NewTimer(st.nextBookmark(timeout))
	defer bookmark.Stop()
	for {
		if st.muted() {
			<-st.r.Context().Done()
			return errCut
		}
		changed, err := st.sendNew()
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-bookmark.C:
			err = st.batch(func() error { return st.sendBookmark(false) })
			bookmark.Reset(st.s.opts.BookmarkInterval)
		case <-st.cut:
			return nil
		case <-st.mute:
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (st *stream) muted() bool {
	select {
	case <-st.mute:
		return true
	default:
		return false
	}
}

// timeout is what the client asked for, or 30 to 60 minutes.
func (st *stream) timeout() time.Duration {
	if n := st.query.TimeoutSeconds; n != nil && *n > 0 {
		return seconds(*n)
	}
	return time.Duration(30+rand.IntN(30)) * time.Minute
}

// nextBookmark is the time to the first bookmark: the interval, or a little before the end if that is sooner.
func (st *stream) nextBookmark(timeout time.Duration) time.Duration {
	if timeout > lastBookmark && timeout-lastBookmark < st.s.opts.BookmarkInterval {
		return timeout - lastBookmark
	}
	return st.s.opts.BookmarkInterval
}

// start finds the position in the log, and sends the objects of now when the client wants them.
func (st *stream) start() error {
	initial := st.query.SendInitialEvents
	legacy := st.s.opts.NoWatchList && st.query.rv == 0
	if initial != nil && *initial || legacy {
		return st.sendInitial()
	}
	st.s.store.mu.Lock()
	defer st.s.store.mu.Unlock()
	if st.query.rv > 0 { // otherwise sendInitialEvents=false: from the time of the request on
		st.pos = st.query.rv
	}
	return st.table.checkAge(st.pos)
}

// sendInitial sends all objects as ADDED, then a bookmark that says so, if bookmarks are wanted.
func (st *stream) sendInitial() error {
	if err := st.reach(st.query.rv); err != nil {
		return err
	}
	st.pos = max(st.pos, st.query.rv)
	all, err := locked(st.s, func() ([]*version, error) { return st.table.list(st.pos) })
	if err != nil {
		return err
	}
	return st.batch(func() error {
		for _, v := range all {
			if err := st.sendEvent(event{cur: v}); err != nil {
				return err
			}
		}
		if st.s.opts.NoWatchList {
			return nil
		}
		return st.sendBookmark(true)
	})
}

// batch writes what f sends to the client, which has writeTimeout to take all of it. The deadline must go away
// afterwards: over HTTP/2 it would end an idle stream.
func (st *stream) batch(f func() error) error {
	rc := http.NewResponseController(st.w)
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // both kinds of connection support it
	if err := f(); err != nil {
		return err
	}
	if err := rc.Flush(); err != nil {
		return errCut
	}
	_ = rc.SetWriteDeadline(time.Time{})
	return nil
}

// sendNew sends what is in the log after the position, and returns a channel that is closed when there is more.
func (st *stream) sendNew() (<-chan struct{}, error) {
	st.s.store.mu.Lock()
	events, changed, err := st.table.since(st.pos)
	if err == nil && len(events) == 0 {
		st.pos = max(st.pos, st.s.store.rv)
	}
	st.s.store.mu.Unlock()
	if err != nil || len(events) == 0 {
		return changed, err
	}
	err = st.batch(func() error {
		for _, e := range events {
			if err := st.sendEvent(e); err != nil {
				return err
			}
		}
		return nil
	})
	st.pos = events[len(events)-1].rv
	return changed, err
}

// sendEvent sends what a change means under the selector: an object that comes into it is ADDED, one that leaves it is
// DELETED, with its last matching state at the new resource version.
func (st *stream) sendEvent(e event) error {
	now := e.cur != nil && st.query.selects(st.table.res, e.cur.obj)
	before := e.prev != nil && st.query.selects(st.table.res, e.prev.obj)
	switch {
	case now && before:
		return st.send(watch.Modified, e.cur)
	case now:
		return st.send(watch.Added, e.cur)
	case before:
		return st.send(watch.Deleted, e.last)
	}
	return nil
}

func (st *stream) send(kind watch.EventType, v *version) error {
	raw, err := v.encode(st.table.res, st.out)
	if err != nil {
		return err
	}
	return st.write(kind, raw)
}

// sendBookmark sends an object of the watched type that has nothing but a resource version.
func (st *stream) sendBookmark(initialEnd bool) error {
	if !st.query.AllowWatchBookmarks {
		return nil
	}
	b := st.table.res.newObject()
	b.SetResourceVersion(strconv.FormatUint(st.pos, 10))
	if initialEnd {
		b.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return st.send(watch.Bookmark, &version{obj: b})
}

// sendError ends the stream with an ERROR event, if the client is still there.
func (st *stream) sendError(err error) {
	raw, err := st.out.encode(statusOf(err))
	if err == nil {
		_ = st.batch(func() error { return st.write(watch.Error, raw) }) // nobody is left to tell
	}
}

// write frames one event.
func (st *stream) write(kind watch.EventType, raw []byte) error {
	st.frame.Reset()
	e := &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}
	if err := st.out.StreamSerializer.Serializer.Encode(e, &st.frame); err != nil {
		return apierrors.NewInternalError(err)
	}
	if _, err := st.wire.Write(st.frame.Bytes()); err != nil {
		return errCut
	}
	return nil
}
