package cases

// commands: kubectl.
func commands() []Case { return nil }
