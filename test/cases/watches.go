package cases

// watches: LIST and WATCH.
func watches() []Case { return nil }
