package rotation

import "testing"

// TestContractPopEarlyAfterNowWentBack: PopEarly promises the key that is due
// next of those not yet due at now, also of those that an earlier call, at a
// later now, had seen due.
func TestContractPopEarlyAfterNowWentBack(t *testing.T) {
	var q Queue[string]
	q.Set("due", epoch, epoch)
	q.Set("later", epoch.Add(5), epoch.Add(10))
	if k, ok := q.PopEarly(epoch.Add(6)); ok {
		t.Fatalf("%q is due", k)
	}
	if k, ok := q.PopEarly(epoch.Add(3)); !ok || k != "later" {
		t.Errorf("%q, %v, want later", k, ok)
	}
}

// TestContractNextIsTheEarliest: what is due makes Next now, and after now went back the
// earliest due time counts again.
func TestContractNextIsTheEarliest(t *testing.T) {
	var q Queue[string]
	q.Set("a", epoch.Add(2), epoch.Add(10))
	q.Set("b", epoch.Add(1), epoch.Add(20))
	q.Set("c", epoch.Add(3), epoch.Add(5))
	if k, _ := q.Pop(epoch.Add(4)); k != "c" {
		t.Fatalf("popped %q", k)
	}
	if next, _ := q.Next(epoch.Add(4)); !next.Equal(epoch.Add(4)) {
		t.Errorf("next %v after the epoch, want 4ns", next.Sub(epoch))
	}
	if next, _ := q.Next(epoch); !next.Equal(epoch.Add(1)) {
		t.Errorf("next %v after the epoch, want 1ns", next.Sub(epoch))
	}
}
