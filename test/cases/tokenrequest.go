package cases

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func tokenRequests() []Case {
	const group = "TokenRequest"
	return []Case{
		{Group: group, Name: "an account that does not exist: 404", Run: func(w *World) {
			_, err := w.requestToken("missing", tokenRequest())
			w.wantRefusal(err, answer{404, metav1.StatusReasonNotFound, `serviceaccounts "missing" not found`})
		}},
	}
}
