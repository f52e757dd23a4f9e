package fakeapi

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// query is what a LIST or WATCH asks for.
type query struct {
	internalversion.ListOptions
	namespace string // "" is all
	rv        uint64 // 0 when none is given
}

// options reads and checks the list options of the URL.
func (c *call) options(t *table) (*query, error) {
	watchList := !c.s.opts.NoWatchList
	q := &query{namespace: c.Namespace}
	if err := c.parameters(&q.ListOptions); err != nil {
		return nil, err
	}
	if q.LabelSelector == nil {
		q.LabelSelector = labels.Everything()
	}
	if q.FieldSelector == nil {
		q.FieldSelector = fields.Everything()
	}
	internalversion.SetListOptionsDefaults(&q.ListOptions, watchList)
	if errs := validation.ValidateListOptions(&q.ListOptions, watchList); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	if err := checkFields(t.res, q); err != nil {
		return nil, err
	}
	var err error
	if q.rv, err = parseVersion(q.ResourceVersion); err != nil && c.Verb == "list" {
		err = apierrors.NewBadRequest("invalid resource version: " + err.Error())
	}
	return q, err
}

// parameters reads the options of the URL.
func (c *call) parameters(into runtime.Object) error {
	if err := internalscheme.ParameterCodec.DecodeParameters(c.r.URL.Query(), metav1.SchemeGroupVersion, into); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

func checkFields(r *resource, q *query) error {
	empty := r.newObject()
	for _, req := range q.FieldSelector.Requirements() {
		switch {
		case r.selectable(empty).Has(req.Field):
		case fieldsOf(empty) == nil: // those without a rule of their own
			return apierrors.NewBadRequest(fmt.Sprintf(`%q is not a known field selector: only "metadata.name", "metadata.namespace"`, req.Field))
		default:
			return apierrors.NewBadRequest("field label not supported: " + req.Field)
		}
	}
	return nil
}

// parseVersion has the real server's error, which a WATCH or GET answers as it is.
func parseVersion(rv string) (uint64, error) {
	if rv == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(rv, 10, 64)
	if err != nil {
		message := field.Invalid(field.NewPath("resourceVersion"), rv, err.Error()).Error()
		return 0, status(http.StatusInternalServerError, "", message)
	}
	return n, nil
}

// selects reports whether the query wants obj.
func (q *query) selects(r *resource, obj Object) bool {
	return q.inNamespace(obj) && q.LabelSelector.Matches(labels.Set(obj.GetLabels())) &&
		(q.FieldSelector.Empty() || q.FieldSelector.Matches(r.selectable(obj)))
}

func (q *query) inNamespace(obj Object) bool {
	return q.namespace == "" || obj.GetNamespace() == q.namespace
}

// freshness is how long a read waits for a resource version that is not there yet, as on the real server.
const freshness = 3 * time.Second

// reach waits until the store is at least at a resource version.
func (c *call) reach(rv uint64) error {
	deadline := time.NewTimer(freshness)
	defer deadline.Stop()
	for {
		c.s.store.mu.Lock()
		current, changed := c.s.store.rv, c.s.store.changed.wait()
		c.s.store.mu.Unlock()
		if current >= rv {
			return nil
		}
		select {
		case <-changed:
		case <-deadline.C:
			return errTooLarge(rv, current)
		case <-c.r.Context().Done():
			c.abort()
		}
	}
}

// get serves one object. A resource version is a lower bound.
func (c *call) get(t *table) error {
	rv, err := parseVersion(c.r.URL.Query().Get("resourceVersion"))
	if err != nil {
		return err
	}
	if err := c.reach(rv); err != nil {
		return err
	}
	return c.replyVersion(http.StatusOK, t.res, func() (*version, error) { return c.s.store.get(t.res.name, c.key()) })
}
