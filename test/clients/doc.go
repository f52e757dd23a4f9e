// Package clients shows that clients nobody here has written survive rotation:
// they read the token files that the real daemon, a process of its own, keeps
// fresh, and whoever they show a token to finds it good. client-go talks to the
// fake API server with it, go-oidc verifies it as a relying party outside the
// cluster does, and the AWS SDK exchanges it for credentials of a role.
//
// The latter two read the file whenever they need a token, and are shown tokens
// of seconds. client-go reads it every 50 s: its tokens last ten minutes, of which
// the server's clock is made to skip the rest.
package clients
