// Package outages holds no code. Its test, behind the build tag outages, measures what an outage of the API server of each
// kind does to a node of 110 pods, with the real daemon and real HTTP: `make outages` takes five minutes and prints a table.
package outages
