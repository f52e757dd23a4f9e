package cases

// discovery: the OIDC documents.
func discovery() []Case { return nil }
