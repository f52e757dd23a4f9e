package cases

import (
	"sync"
	"testing"
)

// Verdict is what became of a case.
type Verdict string

// What a case may come to. Every other verdict is a failure.
const (
	Passed  Verdict = "pass"
	Differs Verdict = "differs"
	NotRun  Verdict = "–"
	Failed  Verdict = "FAIL"
)

// Verdicts are those of one run, by the case's full name. A case that -run did not choose, or that needs a kubectl that is
// not there, has none.
type Verdicts map[string]Verdict

// FullName is unique in the list.
func (c Case) FullName() string { return c.Group + ": " + c.Name }

// OnFake runs all cases on the fake, each as a subtest, and OnReal on a real server.
func OnFake(t *testing.T, target Target) Verdicts {
	return runAll(t, target, func(c Case) Verdict {
		switch {
		case c.RealOnly != "":
			return NotRun
		case c.Differs != "":
			return Differs
		}
		return Passed
	})
}

// OnReal runs all cases on a real server, each as a subtest.
func OnReal(t *testing.T, target Target) Verdicts {
	return runAll(t, target, func(Case) Verdict { return Passed })
}

func runAll(t *testing.T, target Target, expected func(Case) Verdict) Verdicts {
	verdicts := Verdicts{}
	var mu sync.Mutex
	t.Run("cases", func(t *testing.T) {
		for _, c := range All() {
			if c.Kubectl && target.Kubectl() == nil {
				continue
			}
			t.Run(c.FullName(), func(t *testing.T) {
				t.Parallel()
				v := c.judge(t, target, expected(c))
				mu.Lock()
				defer mu.Unlock()
				verdicts[c.FullName()] = v
			})
		}
	})
	return verdicts
}

func (c Case) judge(t *testing.T, target Target, expected Verdict) Verdict {
	if expected == NotRun {
		return NotRun
	}
	switch err := c.Do(t.Context(), target); {
	case err == nil && expected == Differs:
		t.Errorf("passes, though it is said to differ: %s", c.Differs)
		return Failed
	case err != nil && expected == Passed:
		t.Error(err)
		return Failed
	}
	return expected
}
