package controlplane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// AuditEvents returns the audit log's events that match, in the order of the log. Each request has an event of stage
// RequestReceived, written before it is handled, and one of stage ResponseComplete with its answer's code, written
// when the answer has been sent, perhaps a moment after it arrived.
func (c *ControlPlane) AuditEvents(match func(*auditv1.Event) bool) ([]auditv1.Event, error) {
	log, err := os.ReadFile(c.file(auditFile))
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return parseAudit(log, match)
}

// TokenRequests returns one event for each TokenRequest that a client whose user name is user has sent ("" means any
// client), whatever came of it. The user is the one that authenticated, not the one it impersonates.
func (c *ControlPlane) TokenRequests(user string) ([]auditv1.Event, error) {
	return c.AuditEvents(func(event *auditv1.Event) bool {
		return event.Stage == auditv1.StageRequestReceived && isTokenRequest(event) &&
			(user == "" || event.User.Username == user)
	})
}

// TokensGranted returns one event for each TokenRequest of user that was answered with a token.
func (c *ControlPlane) TokensGranted(user string) ([]auditv1.Event, error) {
	return c.AuditEvents(func(event *auditv1.Event) bool {
		return event.Stage == auditv1.StageResponseComplete && isTokenRequest(event) &&
			event.ResponseStatus != nil && event.ResponseStatus.Code == 201 &&
			(user == "" || event.User.Username == user)
	})
}

func isTokenRequest(event *auditv1.Event) bool {
	ref := event.ObjectRef
	return event.Verb == "create" && ref != nil && ref.Resource == "serviceaccounts" && ref.Subresource == "token"
}

// parseAudit leaves out a last line that is still being written.
func parseAudit(log []byte, match func(*auditv1.Event) bool) ([]auditv1.Event, error) {
	var events []auditv1.Event
	for line := range bytes.Lines(log) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		var event auditv1.Event
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, fmt.Errorf("parse the audit log: %w", err)
		}
		if match(&event) {
			events = append(events, event)
		}
	}
	return events, nil
}
