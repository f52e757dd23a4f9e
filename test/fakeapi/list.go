package fakeapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// position is where a LIST goes on, as its continue token says. The real server's looks like this, too.
type position struct {
	Format  string `json:"v"`
	Version int64  `json:"rv"`    // of the first chunk; -1 is now
	Start   string `json:"start"` // the first key that may be in the next chunk
}

const positionFormat = "meta.k8s.io/v1"

func (p position) token() string {
	raw, _ := json.Marshal(p) // of strings and numbers, which cannot fail
	return base64.RawURLEncoding.EncodeToString(raw)
}

func readPosition(token string) (p position, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err == nil && (p.Format != positionFormat || p.Version == 0 || p.Start == "") {
		err = errors.New("it is none of this server's")
	}
	if err != nil {
		return p, apierrors.NewBadRequest("invalid continue token: continue key is not valid: " + err.Error())
	}
	return p, nil
}

const errInconsistent = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, " +
	"or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - " +
	"objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."

// list serves the matching objects of now or of a version of the past, in chunks if the client wants that.
func (c *call) list(t *table) error {
	q, err := c.options(t)
	if err != nil {
		return err
	}
	from := position{Format: positionFormat, Version: -1}
	switch {
	case q.Continue != "":
		if from, err = readPosition(q.Continue); err == nil && q.rv != 0 {
			err = apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
	case q.rv != 0 && (q.ResourceVersionMatch == metav1.ResourceVersionMatchExact || q.ResourceVersionMatch == "" && q.Limit > 0):
		from.Version = int64(q.rv)
	}
	if err == nil {
		err = c.reach(q.rv)
	}
	if err != nil {
		return err
	}
	all, from, err := c.s.listFrom(t, from)
	if err != nil {
		return err
	}
	if q.ResourceVersion == "0" {
		q.Limit = 0 // the real server's cache has all at hand
	}
	c.reply(http.StatusOK, q.chunk(t.res, all, from))
	return nil
}

// listFrom returns all versions at a position, which then names its real version.
func (s *Server) listFrom(t *table, from position) ([]*version, position, error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if from.Version < 0 {
		from.Version = int64(s.store.rv)
	}
	all, err := t.list(uint64(from.Version))
	if err != nil && from.Start != "" {
		e := apierrors.NewResourceExpired(errInconsistent)
		e.ErrStatus.Continue = position{positionFormat, -1, from.Start}.token()
		err = e
	}
	return all, from, err
}

// chunk is the list of what the query selects from a position on, as much as its limit allows. Like the real server it
// says that there is more when there is any object left, selected or not.
func (q *query) chunk(r *resource, all []*version, from position) runtime.Object {
	all = q.within(all, from.Start)
	objs, last := []Object{}, 0
	for i, v := range all {
		if q.selects(r, v.obj) {
			objs, last = append(objs, v.obj), i
		}
		if q.Limit > 0 && int64(len(objs)) == q.Limit {
			break
		}
	}
	list := r.makeList(objs, strconv.FormatInt(from.Version, 10))
	if left := int64(len(all)) - q.Limit; q.Limit > 0 && int64(len(objs)) == q.Limit && last < len(all)-1 {
		from.Start = all[last].key() + "\x00"
		list.(metav1.ListInterface).SetContinue(from.token())
		if q.everything() {
			list.(metav1.ListInterface).SetRemainingItemCount(&left)
		}
	}
	return list
}

// within are the versions of the query's namespace from a key on.
func (q *query) within(all []*version, start string) []*version {
	var out []*version
	for _, v := range all {
		if v.key() >= start && (q.namespace == "" || v.obj.GetNamespace() == q.namespace) {
			out = append(out, v)
		}
	}
	return out
}

// everything: no selector but the namespace.
func (q *query) everything() bool {
	return (q.LabelSelector == nil || q.LabelSelector.Empty()) && (q.FieldSelector == nil || q.FieldSelector.Empty())
}
