package cases

import "slices"

// watches: LIST and WATCH.
func watches() []Case {
	return append(slices.Concat(listOptionRefusals(), chunks(), streams(), transitions()), informersSurvive())
}
