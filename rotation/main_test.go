package rotation

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is an arbitrary server time with a fraction of a second.
var epoch = time.Date(2026, 11, 22, 10, 15, 4, 123456789, time.UTC)
