package fakeapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	authenticationv1 "k8s.io/api/authentication/v1"
)

// call is one request while it is served.
type call struct {
	*Request // as the journal has it; Code is written through the journal only
	user     authenticationv1.UserInfo
	s        *Server
	w        http.ResponseWriter
	r        *http.Request
	body     []byte
	fault    *armed // never nil
	out      *media // of the answer
	began    bool
}

// begin sends the status line and the headers. The Date is the server's, at this moment.
func (c *call) begin(code int, contentType string) {
	h := c.w.Header()
	h.Set("Date", c.s.now().UTC().Format(http.TimeFormat))
	h.Set("Content-Type", contentType)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache, private")
	}
	c.began = true
	c.s.journal.answered(c.Request, code)
	c.w.WriteHeader(code)
}

// reply answers with an object that carries its kind.
func (c *call) reply(code int, obj runtime.Object) {
	if c.fault.Executed && !c.strike() {
		return
	}
	if c.fault.Action == Oversize {
		obj = inflate(obj, c.fault.Size)
	}
	body, err := c.out.encode(obj)
	if err != nil {
		c.replyStatus(statusOf(err))
		return
	}
	c.send(code, body)
}

// replyVersion is reply for the stored object that f, called with the store locked, returns. Its encoding may be at hand.
func (c *call) replyVersion(code int, r *resource, f func() (*version, error)) error {
	v, err := locked(c.s, f)
	if err != nil {
		return err
	}
	if c.fault != pass {
		c.reply(code, r.named(v.obj))
		return nil
	}
	body, err := v.encode(r, c.out)
	if err == nil {
		c.send(code, body)
	}
	return err
}

// replyStatus answers with an error, or with the success of a deletion. No fault of the body touches it.
func (c *call) replyStatus(st *metav1.Status) {
	if d := st.Details; d != nil && d.RetryAfterSeconds > 0 {
		c.w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	body, err := c.out.encode(st)
	if err != nil {
		c.abort()
	}
	c.write(int(st.Code), body)
}

var statusKind = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}

func statusOf(err error) *metav1.Status {
	var api apierrors.APIStatus
	if !errors.As(err, &api) {
		api = apierrors.NewInternalError(err)
	}
	st := api.Status()
	st.TypeMeta = statusKind
	return &st
}

func (c *call) write(code int, body []byte) {
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	c.begin(code, c.out.MediaType)
	_, _ = c.w.Write(body) // the client may be gone, and nobody else wants to know
}

// send is write with the faults of the body.
func (c *call) send(code int, body []byte) {
	switch c.fault.Action {
	case Garble:
		c.write(code, garbage(c.out))
	case ResetBody:
		c.writeHalf(code, body)
		c.reset()
	case HangBody:
		rest := c.writeHalf(code, body)
		c.hold()
		_, _ = c.w.Write(rest) // as in write
	default:
		c.write(code, body)
	}
}

// writeHalf sends the headers of the whole and half of the body, and returns the rest.
func (c *call) writeHalf(code int, body []byte) []byte {
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	c.begin(code, c.out.MediaType)
	_, _ = c.w.Write(body[:len(body)/2]) // as in write
	c.flush()
	return body[len(body)/2:]
}

func (c *call) flush() {
	_ = http.NewResponseController(c.w).Flush() // as in write
}

// garbage begins as the media type does and then means nothing. It is long enough to be a frame of a stream.
func garbage(m *media) []byte {
	if m.EncodesAsText {
		return []byte(`{"kind":[}` + strings.Repeat("\xff", 64))
	}
	return []byte("k8s\x00" + strings.Repeat("\xff", 64))
}

// inflate returns a copy of obj that encodes to at least size bytes.
func inflate(obj runtime.Object, size int) runtime.Object {
	obj = obj.DeepCopyObject()
	padding := strings.Repeat("A", size)
	if t, ok := obj.(*authenticationv1.TokenRequest); ok {
		t.Status.Token += padding
		return obj
	}
	if m, err := meta.Accessor(obj); err == nil {
		m.SetAnnotations(map[string]string{"fakeapi/padding": padding})
	} else if l, err := meta.ListAccessor(obj); err == nil {
		l.SetContinue(padding)
	}
	return obj
}
