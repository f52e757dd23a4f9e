// Package licenses says whose code a program holds, and on which terms it may be passed on.
//
//   - A program's modules are those of the packages that are linked into it, for the system it is built for, and the Go
//     standard library.
//   - A module's texts are its license files and notices, and those of the folders between its top and its packages.
//   - A license that is not on the list of allowed ones is an error, and so are a text that is not mostly a license and a
//     module without any.
package licenses
