package cases

import (
	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// associated are the rights of deploy/base/rbac.yaml: to be the node that one's own pod is on, for what a projector does.
var associated = []rbacv1.PolicyRule{
	{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"nodes"}, Verbs: []string{"impersonate:associated-node"}},
	asNodeTo("pods", "get", "list", "watch"), asNodeTo("serviceaccounts/token", "create"), asNodeTo("secrets", "get"),
}

func asNodeTo(resource string, verbs ...string) rbacv1.PolicyRule {
	rule := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{resource}}
	for _, verb := range verbs {
		rule.Verbs = append(rule.Verbs, "impersonate-on:associated-node:"+verb)
	}
	return rule
}

// grant gives rights everywhere, where there are any to give: the fake grants what the cases need.
func (w *World) grant(to rbacv1.Subject, rules ...rbacv1.PolicyRule) {
	meta := metav1.ObjectMeta{Name: w.NS}
	_, err := w.Client.RbacV1().ClusterRoles().Create(w.Ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		return
	}
	w.must(err)
	_, err = w.Client.RbacV1().ClusterRoleBindings().Create(w.Ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta, Subjects: []rbacv1.Subject{to},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: w.NS},
	}, metav1.CreateOptions{})
	w.must(err)
}

func (w *World) subject(name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: w.NS, Name: name}
}

// tokenOf is a token of the account "app" for the API.
func (n *nodeWorld) tokenOf(bound *authenticationv1.BoundObjectReference) *rest.Config {
	tr := tokenRequest()
	tr.Spec.BoundObjectRef = bound
	tr, err := n.requestToken("app", tr)
	n.must(err)
	return n.Bearer(tr.Status.Token)
}

func acting(config *rest.Config, as rest.ImpersonationConfig) *rest.Config {
	config = rest.CopyConfig(config)
	config.Impersonate = as
	return config
}

func (n *nodeWorld) asNode() rest.ImpersonationConfig {
	return rest.ImpersonationConfig{UserName: "system:node:" + n.node.Name}
}

// projector is the pod here, which may be its node, acting as somebody.
func projector(edit func(*nodeWorld, *rest.ImpersonationConfig)) func(*nodeWorld) *rest.Config {
	return func(n *nodeWorld) *rest.Config {
		n.grant(n.subject("app"), associated...)
		config := n.tokenOf(refTo(n.here))
		n.eventually(func() error { return n.sendAs(acting(config, n.asNode()), n.fill(ownPods), "") })
		as := n.asNode()
		edit(n, &as)
		return acting(config, as)
	}
}

// boundElse is the account, which may be a node, acting as it with a token that is bound to something else.
func boundElse(to func(*nodeWorld) *authenticationv1.BoundObjectReference) func(*nodeWorld) *rest.Config {
	return func(n *nodeWorld) *rest.Config {
		projector(itself)(n)
		return acting(n.tokenOf(to(n)), n.asNode())
	}
}

func itself(*nodeWorld, *rest.ImpersonationConfig) {}

func named(name string) func(*nodeWorld, *rest.ImpersonationConfig) {
	return func(n *nodeWorld, as *rest.ImpersonationConfig) { as.UserName = n.fill(name) }
}

const (
	ownPods = podsOf + "={node}"
	app     = `User "system:serviceaccount:{ns}:app" cannot `
)

// notBe is the refusal to list pods as somebody, by the first kind of impersonation that could have allowed it.
func notBe(who, kind string) answer {
	return forbidden("pods", who+`impersonate-on:`+kind+`:list resource "pods"`+atAll)
}

// notBeInFull is the refusal to be a node with more than its name.
var notBeInFull = forbidden(`users "system:node:{node}"`, app+`impersonate resource "users"`+atAll)

const tokenPath = "POST" + nsPath + "serviceaccounts/app/token"

var asNode = []attempt{
	{name: "a pod's account acts as the pod's node", as: projector(itself), request: ownPods},
	{name: "a pod's account acts as the pod's node, and may not what the node may not: 403", as: projector(itself), request: "GET /api/v1/pods",
		want: forbidden("pods", user+`list resource "pods"`+atAll+onlySelected)},
	{name: "a pod's account requests a token as the pod's node", as: projector(itself), request: tokenPath,
		body: `{"spec":{"audiences":["vault"],"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"here","uid":"{uid}"}}}`},
	{name: "a pod's account requests a token bound to nothing as the pod's node: 403", as: projector(itself), request: tokenPath,
		body: `{"spec":{"audiences":["vault"]}}`, want: refused(notBound)},
	{name: "an account acts as the node that its token is bound to", request: ownPods, as: boundElse(func(n *nodeWorld) *authenticationv1.BoundObjectReference {
		return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: n.node.Name}
	})},
	{name: "an account acts as a node with a token that is bound to nothing: 403", request: ownPods, want: notBe(app, "arbitrary-node"),
		as: boundElse(func(*nodeWorld) *authenticationv1.BoundObjectReference { return nil })},
	{name: "an account acts as a node with a token that is bound to another node's pod: 403", request: ownPods, want: notBe(app, "arbitrary-node"),
		as: boundElse(func(n *nodeWorld) *authenticationv1.BoundObjectReference { return refTo(n.twin) })},
	{name: "an account acts as a node with a token that is bound to a Secret: 403", request: ownPods, want: notBe(app, "arbitrary-node"),
		as: boundElse(func(n *nodeWorld) *authenticationv1.BoundObjectReference {
			return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: "projected"}
		})},
	{name: "an account acts as a node with the token of a pod that is on none: 403", request: ownPods, want: notBe(app, "arbitrary-node"),
		as: boundElse(func(n *nodeWorld) *authenticationv1.BoundObjectReference {
			pod := n.newPod("free", "")
			pod.Spec.ServiceAccountName = "app"
			return refTo(n.createPod(pod))
		})},
}

var asOthers = []attempt{
	{name: "a pod's account lists as another node: 403", as: projector(named("system:node:{other}")), request: ownPods, want: notBe(app, "arbitrary-node")},
	{name: "a pod's account gets as another node: 403", as: projector(named("system:node:{other}")), request: "GET" + nsPath + "pods/here",
		want: forbidden(`pods "here"`, app+`impersonate-on:arbitrary-node:get resource "pods"`+inNS)},
	{name: "a pod's account acts as the pod's node with a group: 403", request: ownPods, want: notBeInFull,
		as: projector(func(_ *nodeWorld, as *rest.ImpersonationConfig) { as.Groups = []string{"system:nodes"} })},
	{name: "a pod's account acts as the pod's node with a UID: 403", request: ownPods, want: notBeInFull,
		as: projector(func(_ *nodeWorld, as *rest.ImpersonationConfig) { as.UID = "1" })},
	{name: "a pod's account acts as the pod's node with an extra: 403", request: ownPods, want: notBeInFull,
		as: projector(func(_ *nodeWorld, as *rest.ImpersonationConfig) { as.Extra = map[string][]string{"a/b": {"c"}} })},
	{name: "a pod's account acts as a user: 403", as: projector(named("jane")), request: ownPods, want: notBe(app, "user-info")},
	{name: "a pod's account acts as an administrator: 403", request: ownPods, want: notBe(app, "user-info"),
		as: projector(func(_ *nodeWorld, as *rest.ImpersonationConfig) {
			*as = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"system:masters"}}
		})},
	{name: "a pod's account acts as nobody: 403", as: projector(named("system:anonymous")), request: ownPods, want: notBe(app, "user-info")},
	{name: "a pod's account acts as what is no name of a node: 403", as: projector(named("system:node:No_Node")), request: ownPods, want: notBe(app, "user-info")},
	{name: "a pod's account acts as another account: 403", as: projector(named("system:serviceaccount:{ns}:over")), request: ownPods,
		want: notBe(app, "serviceaccount")},
	{name: "a pod's account acts as itself: 403", as: projector(named("system:serviceaccount:{ns}:app")), request: ownPods, want: notBe(app, "serviceaccount")},
	{name: "a pod's account acts as another account with a group: 403", request: ownPods,
		as: projector(func(n *nodeWorld, as *rest.ImpersonationConfig) {
			*as = rest.ImpersonationConfig{UserName: n.fill("system:serviceaccount:{ns}:over"), Groups: []string{"a"}}
		}),
		want: forbidden(`serviceaccounts "over"`, app+`impersonate resource "serviceaccounts"`+inNS)},
	{name: "a node lists pods as another: 403", request: ownPods, want: notBe(user, "arbitrary-node"),
		as: func(n *nodeWorld) *rest.Config {
			return acting(n.config, rest.ImpersonationConfig{UserName: "system:node:" + n.other.Name})
		}},
	{name: "a node gets a Secret as itself: 403", request: "GET" + nsPath + "secrets/projected",
		as:   func(n *nodeWorld) *rest.Config { return acting(n.config, n.asNode()) },
		want: forbidden(`secrets "projected"`, user+`impersonate-on:arbitrary-node:get resource "secrets"`+inNS+onlyRead)},
	{name: "nobody acts as a node: 403", request: ownPods, want: notBe(nobody, "arbitrary-node"),
		as: func(n *nodeWorld) *rest.Config { return acting(n.Bearer(""), n.asNode()) }},
}

const nobody = `User "system:anonymous" cannot `

// administrator is one of the case's own, acting as somebody: the real server tries first what last worked for a name, and
// a node whose impersonation was allowed in the old way is not in the group of nodes.
func administrator(as rest.ImpersonationConfig) func(*nodeWorld) *rest.Config {
	return func(n *nodeWorld) *rest.Config {
		config, err := n.User(n.NS+"-admin", "system:masters")
		n.must(err)
		who := as // a case runs more than once in a process
		who.UserName = n.fill(as.UserName)
		return acting(config, who)
	}
}

var byAdministrator = []attempt{
	{name: "an administrator acts as a node", as: administrator(rest.ImpersonationConfig{UserName: "system:node:{node}"}), request: ownPods},
	{name: "an administrator acts as a node, and may not what the node may not: 403", request: "GET /api/v1/pods",
		as:   administrator(rest.ImpersonationConfig{UserName: "system:node:{node}"}),
		want: forbidden("pods", user+`list resource "pods"`+atAll+onlySelected)},
	{name: "an administrator acts as a node with its group: 403", request: "GET /api/v1/pods",
		as:   administrator(rest.ImpersonationConfig{UserName: "system:node:{node}", Groups: []string{"system:nodes"}}),
		want: forbidden("pods", user+`list resource "pods"`+atAll+onlySelected)},
	{name: "an administrator acts as a user in the group of administrators", request: "GET /api/v1/pods",
		as: administrator(rest.ImpersonationConfig{UserName: "jane", Groups: []string{"system:masters"}})},
	{name: "an administrator acts as nobody: 403", as: administrator(rest.ImpersonationConfig{UserName: "system:anonymous"}), request: "GET /api/v1/pods",
		want: forbidden("pods", nobody+`list resource "pods"`+atAll)},
}

// Client-go does not send these headers without a user.
func withoutUser() []Case {
	return []Case{{Group: accessGroup, Name: "a group is impersonated without a user: 400", Run: func(w *World) {
		client, err := kubernetes.NewForConfig(w.Admin)
		w.must(err)
		err = client.CoreV1().RESTClient().Get().RequestURI("/api/v1/pods").SetHeader("Impersonate-Group", "a").Do(w.Ctx).Error()
		w.wantRefusal(err, answer{400, "BadRequest",
			`requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"a"}, Extra:map[string][]string(nil)} without impersonating a user name`})
	}}}
}

func credentials() []attempt {
	bearer := func(token string) func(*nodeWorld) *rest.Config {
		return func(n *nodeWorld) *rest.Config { return n.Bearer(token) }
	}
	unauthorized := answer{401, "Unauthorized", "Unauthorized"}
	return []attempt{
		{name: "nobody lists pods: 403", as: bearer(""), request: "GET /api/v1/pods", want: forbidden("pods", nobody+`list resource "pods"`+atAll)},
		{name: "nobody gets a Secret: 403", as: bearer(""), request: "GET" + nsPath + "secrets/projected",
			want: forbidden(`secrets "projected"`, nobody+`get resource "secrets"`+inNS)},
		{name: "nobody asks for the API groups: 403", as: bearer(""), request: "GET /apis",
			want: answer{403, "Forbidden", `forbidden: User "system:anonymous" cannot get path "/apis"`}},
		{name: "nobody asks whether the server lives", as: bearer(""), request: "GET /livez"},
		{name: "nobody asks for the version", as: bearer(""), request: "GET /version"},
		{name: "a token that is none lists pods: 401", as: bearer("none"), request: "GET /api/v1/pods", want: unauthorized},
		{name: "a token that is none asks whether the server lives: 401", as: bearer("none"), request: "GET /livez", want: unauthorized},
	}
}
