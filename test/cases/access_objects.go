package cases

// What a node may read is granted, though most of it does not exist here: 404 says that much.
const onlyRead = `: node: can only read resources of this type`

var objectReads = []attempt{
	{name: "a node gets the ConfigMap of a pod's projected volume", request: "GET" + nsPath + "configmaps/kube-root-ca.crt"},
	{name: "a node lists that ConfigMap by its name", request: "GET" + nsPath + "configmaps?fieldSelector=metadata.name=kube-root-ca.crt"},
	{name: "a node watches that ConfigMap by its name", request: "GET" + nsPath + "configmaps?fieldSelector=metadata.name=kube-root-ca.crt" + watched},
	{name: "a node gets the Secret of a pod's projected volume", request: "GET" + nsPath + "secrets/projected"},
	{name: "a node lists that Secret by its name", request: "GET" + nsPath + "secrets?fieldSelector=metadata.name=projected"},
	{name: "a node watches that Secret by its name", request: "GET" + nsPath + "secrets?fieldSelector=metadata.name=projected" + watched},
	{name: "a node gets the Secret of a pod's volume: 404 when there is none", request: "GET" + nsPath + "secrets/volume", want: notFound("secrets", "volume")},
	{name: "a node gets the Secret of a container's variable", request: "GET" + nsPath + "secrets/env", want: notFound("secrets", "env")},
	{name: "a node gets the Secret of a container's environment", request: "GET" + nsPath + "secrets/env-from", want: notFound("secrets", "env-from")},
	{name: "a node gets the Secret of an init container", request: "GET" + nsPath + "secrets/init", want: notFound("secrets", "init")},
	{name: "a node gets the Secret that pulls a pod's image", request: "GET" + nsPath + "secrets/pull", want: notFound("secrets", "pull")},
	{name: "a node gets the ConfigMap of a pod's volume: 404 when there is none", request: "GET" + nsPath + "configmaps/volume", want: notFound("configmaps", "volume")},
	{name: "a node gets the ConfigMap of a container's variable", request: "GET" + nsPath + "configmaps/env", want: notFound("configmaps", "env")},
	{name: "a node gets the ConfigMap of a container's environment", request: "GET" + nsPath + "configmaps/env-from", want: notFound("configmaps", "env-from")},

	{name: "a node lists all Secrets of a namespace: 403", request: "GET" + nsPath + "secrets",
		want: forbidden("secrets", user+`list resource "secrets"`+inNS+`: node: No Object name found`)},
	{name: "a node watches all ConfigMaps of a namespace: 403", request: "GET" + nsPath + "configmaps?" + watched,
		want: forbidden("configmaps", user+`watch resource "configmaps"`+inNS+`: node: No Object name found`)},
	{name: "a node lists all Secrets: 403", request: "GET /api/v1/secrets",
		want: forbidden("secrets", user+`list resource "secrets"`+atAll+`: node: can only read namespaced object of this type`)},
	{name: "a node lists the Secrets of all namespaces by a name: 403", request: "GET /api/v1/secrets?fieldSelector=metadata.name=projected",
		want: forbidden(`secrets "projected"`, user+`list resource "secrets"`+atAll+`: node: can only read namespaced object of this type`)},
	{name: "a node gets a Secret that no pod of its own names: 403", request: "GET" + nsPath + "secrets/unrelated",
		want: forbidden(`secrets "unrelated"`, user+`get resource "secrets"`+inNS+noEdge)},
	{name: "a node gets a Secret that another node's pod names: 403", request: "GET" + nsPath + "secrets/elsewhere",
		want: forbidden(`secrets "elsewhere"`, user+`get resource "secrets"`+inNS+noEdge)},
	{name: "a node gets a Secret of the same name in another namespace: 403", request: "GET /api/v1/namespaces/default/secrets/projected",
		want: forbidden(`secrets "projected"`, user+`get resource "secrets" in API group "" in the namespace "default"`+noEdge)},
	{name: "a node gets a ConfigMap that no pod of its own names: 403", request: "GET" + nsPath + "configmaps/unrelated",
		want: forbidden(`configmaps "unrelated"`, user+`get resource "configmaps"`+inNS+noEdge)},
	{name: "a node gets a ConfigMap that only a mirror pod names: 403", request: "GET" + nsPath + "configmaps/mirror",
		want: forbidden(`configmaps "mirror"`, user+`get resource "configmaps"`+inNS+noEdge)},
	{name: "a node gets a mirror pod of its own", request: "GET" + nsPath + "pods/mirror"},
	{name: "a node updates a Secret of its pod: 403", request: "PUT" + nsPath + "secrets/projected", body: `{"metadata":{"name":"projected"}}`,
		want: forbidden(`secrets "projected"`, user+`update resource "secrets"`+inNS+onlyRead)},
	{name: "a node deletes a Secret of its pod: 403", request: "DELETE" + nsPath + "secrets/projected",
		want: forbidden(`secrets "projected"`, user+`delete resource "secrets"`+inNS+onlyRead)},
	{name: "a node creates a ConfigMap: 403", request: "POST" + nsPath + "configmaps", body: `{"metadata":{"name":"volume"}}`,
		want: forbidden("configmaps", user+`create resource "configmaps"`+inNS+onlyRead)},
}

const (
	bundles = " /apis/certificates.k8s.io/v1/clustertrustbundles"
	inCerts = ` in API group "certificates.k8s.io" at the cluster scope`
)

var otherReads = []attempt{
	{name: "a node gets a ClusterTrustBundle", request: "GET" + bundles + "/{ns}-missing", want: notFound("clustertrustbundles.certificates.k8s.io", "{ns}-missing")},
	{name: "a node lists ClusterTrustBundles", request: "GET" + bundles},
	{name: "a node watches ClusterTrustBundles", request: "GET" + bundles + "?" + watched},
	{name: "a node gets itself", request: "GET /api/v1/nodes/{node}"},
	{name: "a node lists itself by its name", request: "GET /api/v1/nodes?fieldSelector=metadata.name={node}"},
	{name: "a node watches itself by its name", request: "GET /api/v1/nodes?fieldSelector=metadata.name={node}" + watched},
	{name: "a node gets another: 403", request: "GET /api/v1/nodes/{other}",
		want: forbidden(`nodes "{other}"`, user+`get resource "nodes"`+atAll+`: node: node '{node}' cannot read '{other}', only its own Node object`)},
	{name: "a node gets another that does not exist: 403, not 404", request: "GET /api/v1/nodes/{ns}-missing",
		want: forbidden(`nodes "{ns}-missing"`, user+`get resource "nodes"`+atAll+`: node: node '{node}' cannot read '{ns}-missing', only its own Node object`)},
	{name: "a node lists all nodes: 403", request: "GET /api/v1/nodes",
		want: forbidden("nodes", user+`list resource "nodes"`+atAll+`: node: node '{node}' cannot read all nodes, only its own Node object`)},
	{name: "a node watches another: 403", request: "GET /api/v1/nodes?fieldSelector=metadata.name={other}" + watched,
		want: forbidden(`nodes "{other}"`, user+`watch resource "nodes"`+atAll+`: node: node '{node}' cannot read '{other}', only its own Node object`)},
	{name: "a node reads its namespace: 403", request: "GET /api/v1/namespaces/{ns}",
		want: forbidden(`namespaces "{ns}"`, user+`get resource "namespaces"`+inNS)},
	{name: "a node lists namespaces: 403", request: "GET /api/v1/namespaces",
		want: forbidden("namespaces", user+`list resource "namespaces"`+atAll)},
	{name: "a node lists events: 403", request: "GET" + nsPath + "events",
		want: forbidden("events", user+`list resource "events"`+inNS)},
	{name: "a node gets an event: 403", request: "GET" + nsPath + "events/missing",
		want: forbidden(`events "missing"`, user+`get resource "events"`+inNS)},
}

const eventBody = `{"metadata":{"name":"new"},"involvedObject":{"kind":"Pod","namespace":"{ns}","name":"here"},"reason":"Tried","type":"Normal"}`

var otherWrites = []attempt{
	{name: "a node creates an event", request: "POST" + nsPath + "events", body: eventBody},
	{name: "a node patches an event", request: "PATCH" + nsPath + "events/old", body: `{"count":2}`},
	{name: "a node deletes an event: 403", request: "DELETE" + nsPath + "events/old",
		want: forbidden(`events "old"`, user+`delete resource "events"`+inNS)},
	{name: "a node creates a ClusterTrustBundle: 403", request: "POST" + bundles, body: `{"metadata":{"name":"{ns}"},"spec":{"trustBundle":""}}`,
		want: forbidden("clustertrustbundles.certificates.k8s.io", user+`create resource "clustertrustbundles"`+inCerts)},
	{name: "a node patches itself", request: "PATCH /api/v1/nodes/{node}", body: `{"metadata":{"annotations":{"a":"b"}}}`},
	{name: "a node reports its own status", request: "PATCH /api/v1/nodes/{node}/status", body: `{"status":{"phase":"Running"}}`},
	{name: "a node patches another: 403", request: "PATCH /api/v1/nodes/{other}", body: `{"metadata":{"annotations":{"a":"b"}}}`,
		want: forbidden(`nodes "{other}"`, `node "{node}" is not allowed to modify node "{other}"`), differs: tokensAlone},
	{name: "a node deletes itself: 403", request: "DELETE /api/v1/nodes/{node}",
		want: forbidden(`nodes "{node}"`, user+`delete resource "nodes"`+atAll)},
}
