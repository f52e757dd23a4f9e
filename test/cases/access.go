package cases

// access: who may do what.
func access() []Case { return nil }
