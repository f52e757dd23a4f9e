package projector

import "fmt"

// Reasons of a VolumeError: the values of the label reason.
const (
	ReasonUnsupported  = "Unsupported"        // the volume says something that is not built
	ReasonInvalid      = "Invalid"            // the volume can never be projected as it stands
	ReasonConflict     = "PathConflict"       // keys of an object and other paths of the volume exclude each other
	ReasonMissing      = "ObjectMissing"      // an object or key it needs is not there
	ReasonUnreadable   = "ObjectUnreadable"   // an object it needs may not or cannot be read
	ReasonTokenRequest = "TokenRequestFailed" // a token was refused or not answered
	ReasonDisk         = "DiskFailed"         // publishing failed
)

// Reasons lists every reason.
var Reasons = []string{ReasonUnsupported, ReasonInvalid, ReasonConflict, ReasonMissing, ReasonUnreadable, ReasonTokenRequest, ReasonDisk}

// VolumeError says why a volume is not, or no longer, wholly as wanted.
type VolumeError struct {
	Reason  string `json:"reason"`  // one of Reasons
	Message string `json:"message"` // what failed and what to do; never holds a token
}

// Error implements error.
func (e *VolumeError) Error() string { return e.Reason + ": " + e.Message }

func (e *VolumeError) in(where string) *VolumeError {
	return &VolumeError{e.Reason, where + ": " + e.Message}
}

// advice is what to do about a failure, where the message itself does not say.
var advice = map[string]string{
	ReasonInvalid:    "; correct the pod's spec and create the pod anew",
	ReasonConflict:   "; rename a key, or project single items",
	ReasonUnreadable: "; let the node read it",
	ReasonDisk:       "; look at the space, owner and mounts of the root directory",
}

func volumeErrorf(reason, format string, args ...any) *VolumeError {
	return &VolumeError{reason, fmt.Sprintf(format, args...) + advice[reason]}
}

func unsupported(what string) *VolumeError {
	return volumeErrorf(ReasonUnsupported, "%s is not supported by this version; remove it from the volume's pod or let a kubelet project the volume", what)
}
