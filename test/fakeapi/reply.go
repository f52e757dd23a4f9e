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
}

// begin sends the status line and the headers. The Date is the server's, at this moment.
func (c *call) begin(code int, contentType string) {
	h := c.w.Header()
	h.Set("Date", c.s.now().UTC().Format(http.TimeFormat))
	h.Set("Content-Type", contentType)
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-cache, private")
	}
	c.s.journal.answered(c.Request, code)
	c.w.WriteHeader(code)
}

// reply answers with an object that carries its kind.
func (c *call) reply(code int, obj runtime.Object) error {
	if c.fault.Executed {
		if err := c.strike(); err != nil {
			return err
		}
	}
	if c.fault.Action == Oversize {
		obj = inflate(obj, c.fault.Size)
	}
	body, err := c.out.encode(obj)
	if err == nil {
		c.send(code, body)
	}
	return err
}

// replyVersion is reply for the stored object that f, called with the store locked, returns. Its encoding may be at hand.
func (c *call) replyVersion(code int, r *resource, f func() (*version, error)) error {
	v, err := locked(c.s, f)
	if err != nil {
		return err
	}
	if c.fault != pass {
		return c.reply(code, r.named(v.obj))
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
	c.fault = pass
	c.send(int(st.Code), body)
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

// send answers with a body, or with what the fault makes of it.
func (c *call) send(code int, body []byte) {
	if c.fault.Action == Garble {
		body = garbage(c.out)
	}
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	c.begin(code, c.out.MediaType)
	sent := 0
	if c.fault.Action == ResetBody || c.fault.Action == HangBody {
		sent, _ = c.w.Write(body[:len(body)/2])
		c.interrupt()
	}
	_, _ = c.w.Write(body[sent:]) // the client may be gone, and nobody else wants to know
}

func (c *call) flush() {
	_ = http.NewResponseController(c.w).Flush() // as in send
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
