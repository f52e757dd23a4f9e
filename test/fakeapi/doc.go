// Package fakeapi is an in-process Kubernetes API server for tests and demonstrations. A stock client-go informer,
// reflector and TokenRequest cannot tell it from the real one (release 1.37), and everything that can go wrong
// between the two can be made to go wrong.
//
// What it promises:
//
//   - It serves TLS over HTTP/1.1 and HTTP/2 with its own CA: pods, configmaps, secrets, serviceaccounts, namespaces,
//     nodes and events of v1, clustertrustbundles of certificates.k8s.io/v1, in JSON, YAML and protobuf; get, list,
//     watch, create, update, patch (strategic merge, merge, JSON) and delete; the status subresource; pods/binding;
//     serviceaccounts/token; TokenReview and SelfSubjectReview.
//   - Resource versions are decimal and one sequence for all. Watches know streaming lists, bookmarks, selectors and
//     what comes into and goes out of them, and expiry; LISTs know chunks and versions of the past. A watcher never holds
//     up the store: it is cut when it is slow.
//   - TokenRequests are checked as the real server checks them, in its order and with its words, and answered with
//     tokens that are really signed: Keys verifies them, and so does whoever discovers the issuer by OIDC. Issuers and
//     keys change while it serves: SetIssuers, SetSigningKeys.
//   - Credentials are the administrator's token, client certificates, and service account tokens for the API. Those end as
//     on the real server: a minute after their time, and with their account, pod, Secret or node; long-lived ones with their
//     Secret alone. Without any, one is system:anonymous.
//   - Nodes are held to the Node authorizer, and for TokenRequests to NodeRestriction: they read their own pods and what
//     those refer to, and get tokens for them, for the audiences of their sources. The refusals have the real words.
//   - A service account impersonates the node that its token is bound to, and nobody else; an administrator, anybody.
//   - kubectl works with it: API discovery, plain and aggregated, says what is served, and odd fields of a body are refused,
//     warned of or ignored as fieldValidation says.
//   - Pods get their defaults, their service account and the injected kube-api-access volume; they are deleted
//     gracefully. Mirror pods get nothing, and may have neither account nor Secret nor token.
//   - Controllers act at once: namespaces get the account default and the ConfigMap kube-root-ca.crt, again if need be;
//     Secrets for the long-lived token of an account are filled, and go with it.
//   - Faults are set and removed while it serves, by Inject; GoDown, CutWatches, MuteWatches and
//     ExpireResourceVersions do the rest. LimitTokenRequests is a server that is pressed.
//   - All requests and all tokens ever issued are on record: Requests, TokenBytes.
//   - Time is the caller's: Options.Now stamps everything that a client sees of it.
//   - Close waits for everything that was started. Nothing is written to disk but what WriteKubeconfig is asked to.
//
// Where it differs from the real server on purpose:
//
//   - Token lifetimes may be clamped to seconds; the real minimum of the clamp is an hour.
//   - There is no RBAC: whoever is no node may do everything, but for system:anonymous, who may do nothing, and for being
//     somebody else. The discovery documents are for anybody, as in clusters whose tokens others shall trust; by default
//     they are for service accounts alone.
//   - Of NodeRestriction there is only what concerns TokenRequests: a node may write any pod's status and any node. No
//     CSIDriver and no right lets it request a token for an audience that no token source of the pod has.
//   - No verdict on a token is remembered; the real server believes a good one for ten seconds.
//   - There are no webhook configurations for tokens to be bound to.
//   - History begins at the server's start, as on a real server that is started where there are objects already. Watches
//     and continued LISTs share it: it ends by Options.History and ExpireResourceVersions alone, never by time.
//   - Answers are never compressed.
//   - The spec of a pod may be changed by an update, except for moving it to another node. Of a pod's spec only token
//     sources are validated, and containers get no defaults.
//   - Of a ClusterTrustBundle only the name is validated, and its signer may be changed by an update.
//   - A deleted namespace is gone at once with all that is in it.
//   - dryRun is refused, so that nobody believes it. So is server-side apply: nobody's fields are managed.
//   - There are no tables, and collections cannot be deleted. Discovery is JSON alone, and OpenAPI says no more than that
//     kubectl may leave validation to the server.
package fakeapi
