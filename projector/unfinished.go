package projector

import (
	"slices"

	"github.com/token-projector/token-projector/atomicwriter"
)

// goesOn reports whether a job has failed by nothing but that it removed a part of what is too much for one: no
// failure, the next goes on. parts counts those in a row. After very many somebody makes entries as fast as they go,
// and the next waits and is reported as after any other failure.
func goesOn(err error, parts *int) bool {
	if !onlyUnfinished(err) {
		*parts = 0
		return false
	}
	*parts++
	return *parts <= maxParts
}

// onlyUnfinished reports whether all that err wraps is ErrUnfinished.
func onlyUnfinished(err error) bool {
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !onlyUnfinished(err) })
	case interface{ Unwrap() error }:
		return onlyUnfinished(e.Unwrap())
	}
	return err == atomicwriter.ErrUnfinished
}
