// Package churn holds no code. Its test, behind the build tag churn, lets pods come and go on one real daemon for an hour,
// and fails if anything of that process grows by it: `make churn`. What judges growth is tested without the tag.
package churn
