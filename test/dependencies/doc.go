// Package dependencies holds no code: its tests, behind the build tag dependencies, hold docs/dependencies.md and the size of
// the program to what is built.
//
//   - Every module that go.mod requires directly, and every other that is heavy, is in the document's tables.
//   - The figures are measured anew, and written with -update.
//   - The licenses are read anew; one that is not allowed is an error.
package dependencies
