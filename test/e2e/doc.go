// Package e2e holds no code: its tests, behind the build tag e2e, need root, and `make e2e` runs them.
package e2e
