package cases

import "slices"

// accessGroup is about who may do what.
const accessGroup = "Access"

func access() []Case {
	return slices.Concat(
		attempts(podReads), attempts(podWrites), attempts(accountReads), attempts(objectReads), attempts(otherReads), attempts(otherWrites),
		tokenAttempts(), ending(), attempts(asNode), attempts(asOthers), attempts(byAdministrator), withoutUser(), attempts(credentials()),
		attempts(rights), realOnlyAccess(),
	)
}

// What the refusals have in common. The rest in braces is filled in by nodeWorld.
const (
	user    = `User "system:node:{node}" cannot `
	inNS    = ` in API group "" in the namespace "{ns}"`
	atAll   = ` in API group "" at the cluster scope`
	noEdge  = `: node: no relationship found between node '{node}' and this object`
	podsOf  = "GET /api/v1/pods?fieldSelector=spec.nodeName"
	watched = "&watch=true&timeoutSeconds=1"
	nsPath  = " /api/v1/namespaces/{ns}/"
)

// forbidden is the answer 403 to a request for an object or a resource.
func forbidden(of, why string) answer {
	return answer{403, "Forbidden", of + " is forbidden: " + why}
}

func notFound(resource, name string) answer {
	return answer{404, "NotFound", resource + ` "` + name + `" not found`}
}

const onlySelected = `: node: can only list/watch pods with spec.nodeName field selector`

var podReads = []attempt{
	{name: "a node lists its pods", request: podsOf + "={node}"},
	{name: "a node watches its pods", request: podsOf + "={node}" + watched},
	{name: "a node lists its pods in one namespace", request: "GET" + nsPath + "pods?fieldSelector=spec.nodeName={node}"},
	{name: "a node lists its pods that are pending, too", request: podsOf + "={node},status.phase=Pending"},
	{name: "a node lists all pods: 403", request: "GET /api/v1/pods",
		want: forbidden("pods", user+`list resource "pods"`+atAll+onlySelected)},
	{name: "a node lists all pods of a namespace: 403", request: "GET" + nsPath + "pods",
		want: forbidden("pods", user+`list resource "pods"`+inNS+onlySelected)},
	{name: "a node watches all pods: 403", request: "GET /api/v1/pods?" + watched,
		want: forbidden("pods", user+`watch resource "pods"`+atAll+onlySelected)},
	{name: "a node lists another node's pods: 403", request: podsOf + "={other}",
		want: forbidden("pods", user+`list resource "pods"`+atAll+onlySelected)},
	{name: "a node lists the pods that are not another's: 403", request: podsOf + "!={other}",
		want: forbidden("pods", user+`list resource "pods"`+atAll+onlySelected)},
	{name: "a node lists its pods by a label: 403", request: "GET /api/v1/pods?labelSelector=node={node}",
		want: forbidden("pods", user+`list resource "pods"`+atAll+onlySelected)},
	{name: "a node gets a pod of its own", request: "GET" + nsPath + "pods/here"},
	{name: "a node gets another node's pod: 403", request: "GET" + nsPath + "pods/there",
		want: forbidden(`pods "there"`, user+`get resource "pods"`+inNS+noEdge)},
	{name: "a node gets a pod that is on no node: 403", request: "GET" + nsPath + "pods/nowhere",
		want: forbidden(`pods "nowhere"`, user+`get resource "pods"`+inNS+noEdge)},
	{name: "a node gets a pod that does not exist: 403, not 404", request: "GET" + nsPath + "pods/missing",
		want: forbidden(`pods "missing"`, user+`get resource "pods"`+inNS+noEdge)},
	{name: "a node lists one pod of its own by its name", request: "GET" + nsPath + "pods?fieldSelector=metadata.name=here"},
	{name: "a node lists one pod of another node by its name: 403", request: "GET" + nsPath + "pods?fieldSelector=metadata.name=there",
		want: forbidden(`pods "there"`, user+`list resource "pods"`+inNS+noEdge)},
	{name: "a node reads the status of a pod of its own: 403", request: "GET" + nsPath + "pods/here/status",
		want: forbidden(`pods "here"`, user+`get resource "pods/status"`+inNS)},
}

// tokensAlone is why a node may write more on the fake.
const tokensAlone = "NodeRestriction is there for TokenRequests alone"

const podBody = `{"metadata":{"name":"new"},"spec":{"nodeName":"{node}","containers":[{"name":"app","image":"none.invalid/app"}]}}`

var podWrites = []attempt{
	{name: "a node creates a pod: 403", request: "POST" + nsPath + "pods", body: podBody,
		want: forbidden(`pods "new"`, `pod does not have "kubernetes.io/config.mirror" annotation, node "{node}" can only create mirror pods`), differs: tokensAlone},
	{name: "a node patches a pod of its own: 403", request: "PATCH" + nsPath + "pods/here", body: `{"metadata":{"labels":{"a":"b"}}}`,
		want: forbidden(`pods "here"`, user+`patch resource "pods"`+inNS)},
	{name: "a node deletes all pods: 403", request: "DELETE" + nsPath + "pods",
		want: forbidden("pods", user+`deletecollection resource "pods"`+inNS)},
	{name: "a node deletes a pod of its own", request: "DELETE" + nsPath + "pods/here?gracePeriodSeconds=0"},
	{name: "a node deletes another node's pod: 403", request: "DELETE" + nsPath + "pods/there",
		want: forbidden(`pods "there"`, `node "{node}" can only delete pods with spec.nodeName set to itself`), differs: tokensAlone},
	{name: "a node deletes a pod that does not exist: 404", request: "DELETE" + nsPath + "pods/missing", want: notFound("pods", "missing")},
	{name: "a node reports the status of a pod of its own", request: "PATCH" + nsPath + "pods/here/status", body: `{"status":{"phase":"Running"}}`},
	{name: "a node reports the status of another node's pod: 403", request: "PATCH" + nsPath + "pods/there/status", body: `{"status":{"phase":"Running"}}`,
		want: forbidden(`pods "there"`, `node "{node}" can only update pod status for pods with spec.nodeName set to itself`), differs: tokensAlone},
	{name: "a node reports the status of a pod that does not exist: 404", request: "PATCH" + nsPath + "pods/missing/status", body: `{"status":{}}`,
		want: notFound("pods", "missing")},
	{name: "a node changes a pod's labels with its status: 403", request: "PATCH" + nsPath + "pods/here/status", body: `{"metadata":{"labels":{"a":"b"}}}`,
		want: forbidden(`pods "here"`, `node "{node}" cannot update labels through pod status`), differs: tokensAlone},
}

const onlyTokens = `: node: can only create tokens for individual service accounts`

var accountReads = []attempt{
	{name: "a node gets the account of a pod of its own", request: "GET" + nsPath + "serviceaccounts/app"},
	{name: "a node gets the account of a pod that is over", request: "GET" + nsPath + "serviceaccounts/over"},
	{name: "a node gets the account of another node's pod: 403", request: "GET" + nsPath + "serviceaccounts/elsewhere",
		want: forbidden(`serviceaccounts "elsewhere"`, user+`get resource "serviceaccounts"`+inNS+noEdge)},
	{name: "a node gets an account that does not exist: 403, not 404", request: "GET" + nsPath + "serviceaccounts/missing",
		want: forbidden(`serviceaccounts "missing"`, user+`get resource "serviceaccounts"`+inNS+noEdge)},
	{name: "a node gets an account of the same name elsewhere: 403", request: "GET /api/v1/namespaces/default/serviceaccounts/default",
		want: forbidden(`serviceaccounts "default"`, user+`get resource "serviceaccounts" in API group "" in the namespace "default"`+noEdge)},
	{name: "a node lists the one account of its pod: 403", request: "GET" + nsPath + "serviceaccounts?fieldSelector=metadata.name=app",
		want: forbidden(`serviceaccounts "app"`, user+`list resource "serviceaccounts"`+inNS+onlyTokens)},
	{name: "a node watches the one account of its pod: 403", request: "GET" + nsPath + "serviceaccounts?fieldSelector=metadata.name=app" + watched,
		want: forbidden(`serviceaccounts "app"`, user+`watch resource "serviceaccounts"`+inNS+onlyTokens)},
	{name: "a node creates an account: 403", request: "POST" + nsPath + "serviceaccounts", body: `{"metadata":{"name":"new"}}`,
		want: forbidden("serviceaccounts", user+`create resource "serviceaccounts"`+inNS+onlyTokens)},
	{name: "a node deletes the account of its pod: 403", request: "DELETE" + nsPath + "serviceaccounts/app",
		want: forbidden(`serviceaccounts "app"`, user+`delete resource "serviceaccounts"`+inNS+onlyTokens)},
	{name: "a node reads a token subresource: 403", request: "GET" + nsPath + "serviceaccounts/app/token",
		want: forbidden(`serviceaccounts "app"`, user+`get resource "serviceaccounts/token"`+inNS+onlyTokens)},
}
