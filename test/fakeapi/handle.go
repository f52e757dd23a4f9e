package fakeapi

import (
	"errors"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	apiversion "k8s.io/apimachinery/pkg/version"
)

// maxBody is the real server's limit of a request body.
const maxBody = 3 << 20

// handle serves one request: fault, journal, authentication, then the resource.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.running.Done()
	user := s.authenticate(r)
	c := &call{Request: describe(r, user.Username), user: user, s: s, w: w, r: r, out: medias[0]}
	m, refused := negotiate(c.Accept, c.Verb == "watch")
	if refused == nil {
		c.out = m
	}
	// The body is read before anything hangs: only then does HTTP/1.1 notice a client that went away.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil && refused == nil {
		refused = bodyError(err)
	}
	c.body = body
	c.fault = s.faults.take(c.Request)
	s.journal.add(c.Request) // only now, so that whoever waits for a request knows that its fault has hit
	if err = c.before(); err == nil {
		err = c.serve(refused)
	}
	if err != nil {
		c.replyStatus(statusOf(err))
	}
}

// roots are the paths that resources are served under, each with its group.
var roots = map[string]string{
	"/api/v1/":                        corev1.GroupName,
	"/apis/certificates.k8s.io/v1/":   certificatesv1.GroupName,
	"/apis/authentication.k8s.io/v1/": authenticationv1.GroupName,
}

// describe reads what the URL and the headers say. A path that is no resource's has no Resource.
func describe(r *http.Request, user string) *Request {
	q := &Request{
		Time: time.Now(), User: user, Query: r.URL.RawQuery, UserAgent: r.UserAgent(),
		ContentType: r.Header.Get("Content-Type"), Accept: r.Header.Get("Accept"), Proto: r.Proto,
	}
	for root, group := range roots {
		if path, ok := strings.CutPrefix(r.URL.Path, root); ok {
			q.Group = group
			q.locate(strings.Split(strings.TrimSuffix(path, "/"), "/"))
		}
	}
	q.Verb = verbOf(r, q.Name != "")
	return q
}

// locate reads [namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE]].
func (q *Request) locate(parts []string) {
	if len(parts) > 2 && parts[0] == "namespaces" && parts[2] != "status" && parts[2] != "finalize" {
		q.Namespace, parts = parts[1], parts[2:]
	}
	if len(parts) > 3 {
		return
	}
	parts = append(parts, "", "")
	q.Resource, q.Name, q.Subresource = parts[0], parts[1], parts[2]
}

func verbOf(r *http.Request, named bool) string {
	watch, _ := strconv.ParseBool(r.URL.Query().Get("watch"))
	switch verb := methodVerbs[r.Method]; {
	case verb == "get" && !named && watch:
		return "watch"
	case verb == "get" && !named:
		return "list"
	case verb == "delete" && !named:
		return "deletecollection"
	default:
		return verb
	}
}

var methodVerbs = map[string]string{
	http.MethodGet: "get", http.MethodHead: "get", http.MethodDelete: "delete",
	http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch",
}

var (
	errNoPath   = status(http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
	errNoMethod = status(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource")
	errDryRun   = apierrors.NewBadRequest("fakeapi has no dry run")
)

// serve answers a request, or returns the error to answer with. refused is why it cannot be served at all, for a user who
// may know.
func (c *call) serve(refused error) error {
	if c.User == "" {
		return apierrors.NewUnauthorized("Unauthorized")
	}
	if err := c.impersonate(); err != nil {
		return err
	}
	if err := c.authorize(c.asked()); err != nil {
		return err
	}
	switch {
	case c.Resource == "":
		return c.serveRoot()
	case c.Group == authenticationv1.GroupName:
		return c.serveReview(refused)
	}
	t := c.s.store.tables[c.Resource]
	if t == nil || t.res.kind.Group != c.Group || (c.Namespace != "" && !t.res.namespaced) {
		return errNoPath
	}
	if refused != nil {
		return refused
	}
	if c.r.URL.Query().Has("dryRun") {
		return errDryRun
	}
	return c.dispatch(t)
}

func bodyError(err error) error {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return apierrors.NewRequestEntityTooLargeError("limit is " + strconv.Itoa(maxBody))
	}
	return apierrors.NewBadRequest("read the request body: " + err.Error())
}

// serveRoot answers what clients ask outside of resources.
func (c *call) serveRoot() error {
	switch c.r.URL.Path {
	case "/healthz", "/livez", "/readyz":
		c.begin(http.StatusOK, "text/plain; charset=utf-8")
		_, err := io.WriteString(c.w, "ok")
		return err
	case "/version":
		return c.serveJSON("application/json", apiversion.Info{Major: "1", Minor: "37", GitVersion: "v1.37.0", Platform: "linux/amd64"})
	case configPath:
		return c.serveOpenID("application/json", c.s.openIDConfig())
	case keysPath:
		return c.serveOpenID("application/jwk-set+json", c.s.Keys())
	}
	return c.serveAPIs()
}

func (c *call) dispatch(t *table) error {
	verbs := map[string]func(*table) error{"get": c.get, "update": c.update, "patch": c.update}
	switch path := path.Join(c.Resource, c.Subresource); {
	case path == "serviceaccounts/token":
		verbs = map[string]func(*table) error{"create": c.createToken}
	case path == "pods/binding":
		verbs = map[string]func(*table) error{"create": c.bindPod}
	case c.Subresource == "status" && t.res.hasStatus:
	case c.Subresource != "":
		return errNoPath
	case t.res.namespaced && c.Namespace == "":
		verbs = map[string]func(*table) error{"list": c.list, "watch": c.watch}
	default:
		verbs["list"], verbs["watch"], verbs["create"], verbs["delete"] = c.list, c.watch, c.create, c.delete
	}
	if serve := verbs[c.Verb]; serve != nil {
		return serve(t)
	}
	return errNoMethod
}

func (c *call) key() types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

// createToken answers 201 with the completed request.
func (c *call) createToken(*table) error {
	tr := &authenticationv1.TokenRequest{}
	return c.complete(tr, tokenRequestKind, func() error {
		if err := c.admitToken(&tr.Spec); err != nil {
			return err
		}
		return c.requestToken(tr)
	})
}
