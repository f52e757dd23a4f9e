package fakeapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// object decodes the request's object and checks it against the URL.
func (c *call) object(t *table) (Object, error) {
	obj := t.res.newObject()
	if err := c.decode(t.res.kind, obj); err != nil {
		return nil, err
	}
	return obj, c.checkPlace(obj)
}

func (c *call) checkNamespace(obj Object) error {
	if ns := obj.GetNamespace(); ns != "" && ns != c.Namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

func (c *call) checkPlace(obj Object) error {
	if err := c.checkNamespace(obj); err != nil {
		return err
	}
	if c.Name != "" && obj.GetName() != "" && obj.GetName() != c.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), c.Name))
	}
	obj.SetNamespace(c.Namespace)
	return nil
}

func (c *call) create(t *table) error {
	if c.Name != "" {
		return errNoMethod
	}
	obj, err := c.object(t)
	if err != nil {
		return err
	}
	return c.replyVersion(http.StatusCreated, t.res, func() (*version, error) { return c.s.create(t, obj) })
}

// update is PUT and PATCH of an object or of a subresource.
func (c *call) update(t *table) error {
	edit := c.replacement(t)
	if c.Verb == "patch" {
		edit = c.patched(t)
	}
	return c.replyVersion(http.StatusOK, t.res, func() (*version, error) { return c.s.update(t, c.key(), c.Subresource, edit) })
}

func (c *call) replacement(t *table) func(Object) (Object, error) {
	obj, err := c.object(t)
	return func(Object) (Object, error) { return obj, err }
}

// patched applies the request's patch to the current object, in JSON as the real server does.
func (c *call) patched(t *table) func(Object) (Object, error) {
	return func(cur Object) (Object, error) {
		doc, err := json.Marshal(t.res.named(cur))
		if err != nil {
			return nil, fmt.Errorf("encode the object to patch: %w", err)
		}
		out, err := c.applyPatch(doc, t.res.newObject())
		if err != nil {
			return nil, err
		}
		next := t.res.newObject()
		if err := c.decodePatched(out, t.res.kind, next); err != nil {
			return nil, err
		}
		return next, c.checkPlace(next)
	}
}

func (c *call) applyPatch(doc []byte, schema Object) (out []byte, err error) {
	name, _, _ := mime.ParseMediaType(c.ContentType)
	switch types.PatchType(name) {
	case types.StrategicMergePatchType:
		out, err = strategicpatch.StrategicMergePatch(doc, c.body, schema)
	case types.MergePatchType:
		out, err = jsonpatch.MergePatch(doc, c.body)
	case types.JSONPatchType:
		var patch jsonpatch.Patch
		if patch, err = jsonpatch.DecodePatch(c.body); err == nil {
			out, err = patch.Apply(doc)
		}
	default:
		return nil, errPatchType
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return out, nil
}

var errPatchType = unsupportedMedia(string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType))

// deleteOptions come in the body, as DeleteOptions of v1 or meta.k8s.io/v1, or in the query.
func (c *call) deleteOptions() (opts metav1.DeleteOptions, err error) {
	if len(c.body) > 0 {
		err = decode(c.ContentType, c.body, deleteOptionsKind, &opts)
	} else {
		err = c.parameters(&opts)
	}
	if err == nil && len(opts.DryRun) > 0 {
		err = errDryRun
	}
	return opts, err
}

func (c *call) delete(t *table) error {
	opts, err := c.deleteOptions()
	if err != nil {
		return err
	}
	v, err := locked(c.s, func() (*version, error) { return c.s.delete(t, c.key(), opts) })
	if err != nil {
		return err
	}
	if v.gone && !t.res.returnsDeleted {
		return c.reply(http.StatusOK, deletedStatus(t.res, v.obj))
	}
	return c.reply(http.StatusOK, t.res.named(v.obj))
}

func deletedStatus(r *resource, obj Object) *metav1.Status {
	return &metav1.Status{
		TypeMeta: statusKind,
		Status:   metav1.StatusSuccess,
		Details:  &metav1.StatusDetails{Name: obj.GetName(), Kind: r.name, UID: obj.GetUID()},
	}
}

// decode reads the request's body, and does about odd fields what the client wants.
func (c *call) decode(kind schema.GroupVersionKind, into runtime.Object) error {
	return c.validate(decode(c.ContentType, c.body, kind, into), func(strict error) error {
		return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %[1]s: %[3]v", kind.Kind, kind.Version, strict))
	})
}

// decodePatched reads what a patch has made of an object. A refusal shows the patch as Go prints it, or what came out.
func (c *call) decodePatched(body []byte, kind schema.GroupVersionKind, into runtime.Object) error {
	var patch any
	odd, _ := kjson.UnmarshalStrict(c.body, &patch) // it was applied, so it is JSON
	err := decode(runtime.ContentTypeJSON, body, kind, into)
	strict, ok := runtime.AsStrictDecodingError(err)
	if ok {
		odd = append(odd, strict.Errors()...)
	}
	if len(odd) > 0 && (ok || err == nil) {
		err = runtime.NewStrictDecodingError(odd)
	}
	return c.validate(err, func(strict error) error {
		shown := string(body)
		if m, ok := patch.(map[string]any); ok && strings.HasPrefix(c.ContentType, string(types.StrategicMergePatchType)) {
			shown = fmt.Sprintf("%+v", m)
		}
		return invalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), shown, strict.Error())})
	})
}

// validate makes of err, the end of a decoding, what the query's fieldValidation says: Strict refuses odd fields, Warn,
// the default, warns of them, Ignore is silent.
func (c *call) validate(err error, refusal func(strict error) error) error {
	directive := cmp.Or(c.r.URL.Query().Get("fieldValidation"), metav1.FieldValidationWarn)
	if errs := validation.ValidateFieldValidation(field.NewPath("fieldValidation"), directive); len(errs) > 0 {
		options := map[string]string{"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}[c.Verb]
		return invalid(schema.GroupKind{Group: metav1.GroupName, Kind: options}, "", errs)
	}
	strict, ok := runtime.AsStrictDecodingError(err)
	switch {
	case !ok:
		return err
	case directive == metav1.FieldValidationStrict:
		return refusal(err)
	case directive == metav1.FieldValidationWarn:
		for _, e := range strict.Errors() {
			c.warn(e.Error())
		}
	}
	return nil
}

// warn sends warnings with the answer.
func (c *call) warn(texts ...string) {
	for _, text := range texts {
		if header, err := utilnet.NewWarningHeader(299, "-", text); err == nil { // else it is no text that a header can hold
			c.w.Header().Add("Warning", header)
		}
	}
}
