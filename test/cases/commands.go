package cases

import "slices"

// commands: what kubectl wants to know of a server before it does anything.
func commands() []Case { return slices.Concat(apiDiscovery(), fieldValidation()) }
