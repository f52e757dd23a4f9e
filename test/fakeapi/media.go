package fakeapi

import (
	"cmp"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/munnerz/goautoneg"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/kubernetes/scheme"
)

// media is one media type that can be read and written.
type media struct {
	runtime.SerializerInfo
	deleteOptions runtime.Decoder // of whichever group they say they are
}

// mediaNames are in the order of the server's preference when the client has none.
var mediaNames = []string{runtime.ContentTypeJSON, runtime.ContentTypeYAML, runtime.ContentTypeProtobuf}

var medias = newMedias()

func newMedias() (out []*media) {
	for _, name := range mediaNames {
		info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), name) // client-go has all three
		meta, _ := runtime.SerializerInfoForMediaType(internalscheme.Codecs.SupportedMediaTypes(), name)
		out = append(out, &media{info, internalscheme.Codecs.DecoderToVersion(meta.Serializer, metav1.SchemeGroupVersion)})
	}
	return out
}

// negotiate picks the media type of an answer. Clauses that ask for a transformation (as=Table) are
// passed over: clients that send one always offer the plain type too.
func negotiate(accept string, stream bool) (*media, error) {
	for _, clause := range goautoneg.ParseAccept(cmp.Or(accept, "*/*")) {
		if clause.Params["as"] != "" {
			continue
		}
		for _, m := range medias {
			if clauseAccepts(clause, m) && (!stream || m.StreamSerializer != nil) {
				return m, nil
			}
		}
	}
	return nil, status(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
		"only the following media types are accepted: "+strings.Join(mediaNames, ", "))
}

func clauseAccepts(c goautoneg.Accept, m *media) bool {
	return c.Type == "*" || c.Type == m.MediaTypeType && (c.SubType == "*" || c.SubType == m.MediaTypeSubType)
}

// decode reads a request body into an object whose kind is kind. A body of another kind is refused. Unknown and doubled
// fields are a runtime.StrictDecodingError, with which the object is complete all the same.
func decode(contentType string, body []byte, kind schema.GroupVersionKind, into runtime.Object) error {
	m, err := bodyMedia(contentType)
	if err != nil {
		return err
	}
	decoder := runtime.Decoder(m.StrictSerializer)
	if kind == deleteOptionsKind {
		decoder = m.deleteOptions
	}
	got, gvk, err := decoder.Decode(body, &kind, into)
	switch {
	case err != nil && !runtime.IsStrictDecodingError(err):
		return apierrors.NewBadRequest(err.Error())
	case got != into && kind == deleteOptionsKind:
		return apierrors.NewBadRequest("decoded object cannot be converted to DeleteOptions")
	case got != into:
		return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %s", kind.Kind, gvk.Kind))
	}
	return err
}

var deleteOptionsKind = metav1.SchemeGroupVersion.WithKind("DeleteOptions")

func bodyMedia(contentType string) (*media, error) {
	name, _, err := mime.ParseMediaType(cmp.Or(contentType, runtime.ContentTypeJSON))
	if i := slices.Index(mediaNames, name); i >= 0 && err == nil {
		return medias[i], nil
	}
	return nil, unsupportedMedia(mediaNames...)
}

func unsupportedMedia(accepted ...string) error {
	return status(http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType,
		"the body of the request was in an unknown format - accepted media types include: "+strings.Join(accepted, ", "))
}

// invalid is the 422 of a list of errors, nil if there is none.
func invalid(kind schema.GroupKind, name string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(kind, name, errs)
}

// status is an API error of any code.
func status(code int32, reason metav1.StatusReason, message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message,
	}}
}

// encode renders an object that already carries its kind. It never writes to obj: stored objects are shared.
func (m *media) encode(obj runtime.Object) ([]byte, error) {
	b, err := runtime.Encode(m.Serializer, obj)
	if err != nil {
		return nil, fmt.Errorf("encode %T as %s: %w", obj, m.MediaType, err)
	}
	return b, nil
}

// version is one immutable state of one object, with its encodings made at most about once per media type.
type version struct {
	obj  Object
	rv   uint64
	gone bool     // the last state of an object that was removed, or that a selector does not see any more
	raw  sync.Map // encodings, by *media
}

func (v *version) encode(r *resource, m *media) ([]byte, error) {
	if b, ok := v.raw.Load(m); ok {
		return b.([]byte), nil
	}
	b, err := m.encode(r.named(v.obj))
	if err == nil {
		v.raw.Store(m, b)
	}
	return b, err
}
