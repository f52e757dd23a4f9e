package fakeapi

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// position is where a LIST goes on, as its continue token says.
type position struct {
	Version int64  `json:"rv"`    // of the first chunk; -1 is now
	Start   string `json:"start"` // the first key that may be in the next chunk
}

func (p position) token() string {
	raw, _ := json.Marshal(p) // of a string and a number, which cannot fail
	return base64.RawURLEncoding.EncodeToString(raw)
}

// position is where the query's list begins. A limit makes a version exact.
func (q *query) position() (p position, err error) {
	exact := q.ResourceVersionMatch == metav1.ResourceVersionMatchExact || q.ResourceVersionMatch == "" && q.Limit > 0
	switch {
	case q.Continue == "" && exact && q.rv != 0:
		return position{Version: int64(q.rv)}, nil
	case q.Continue == "":
		return position{Version: -1}, nil
	case q.rv != 0:
		return p, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	raw, err := base64.RawURLEncoding.DecodeString(q.Continue)
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		err = apierrors.NewBadRequest("invalid continue token: continue key is not valid: " + err.Error())
	}
	return p, err
}

const inconsistent = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, " +
	"or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - " +
	"objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."

// list serves the matching objects of now or of a version of the past, in chunks if the client wants that.
func (c *call) list(t *table) error {
	q, err := c.options(t)
	if err != nil {
		return err
	}
	from, err := q.position()
	if err == nil {
		err = c.reach(q.rv)
	}
	if err != nil {
		return err
	}
	all, err := locked(c.s, func() ([]*version, error) {
		if from.Version < 0 {
			from.Version = int64(c.s.store.rv)
		}
		return t.list(uint64(from.Version))
	})
	if err != nil && from.Start != "" {
		goOn := apierrors.NewResourceExpired(inconsistent)
		goOn.ErrStatus.Continue = position{-1, from.Start}.token()
		return goOn
	}
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, q.chunk(t.res, all, from))
}

// chunk is the list of what the query selects from a position on, as much as its limit allows, unless any version will do.
// Like the real server it says that there is more when there is any object left, selected or not.
func (q *query) chunk(r *resource, all []*version, from position) runtime.Object {
	all = slices.DeleteFunc(all, func(v *version) bool { return v.key() < from.Start || !q.inNamespace(v.obj) })
	objs, next := []runtime.Object{}, 0
	for full := false; next < len(all) && !full; next++ {
		if q.selects(r, all[next].obj) {
			objs = append(objs, all[next].obj)
		}
		full = q.ResourceVersion != "0" && q.Limit > 0 && int64(len(objs)) == q.Limit
	}
	list := r.makeList(objs, strconv.FormatInt(from.Version, 10))
	if left := int64(len(all) - next); left > 0 {
		meta := list.(metav1.ListInterface)
		meta.SetContinue(position{from.Version, all[next].key()}.token())
		if q.LabelSelector.Empty() && q.FieldSelector.Empty() {
			meta.SetRemainingItemCount(&left)
		}
	}
	return list
}
