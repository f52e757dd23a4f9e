package cases

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// fieldValidation: what the server does about fields that it does not know, or that come twice.
func fieldValidation() []Case {
	var out []Case
	for _, c := range []struct {
		name string
		run  func(*oddities)
	}{
		{"an unknown field is dropped, with a warning", func(o *oddities) {
			o.warns(`unknown field "daata"`, "", `{"metadata":{"name":"c"},"daata":{}}`)
		}},
		{"a field that comes twice counts once, with a warning", func(o *oddities) {
			o.warns(`duplicate field "data.a"`, "", `{"metadata":{"name":"c"},"data":{"a":"1","a":"2"}}`)
		}},
		{"fieldValidation=Ignore warns of nothing", func(o *oddities) {
			o.warns("", "?fieldValidation=Ignore", `{"metadata":{"name":"c"},"daata":{}}`)
		}},
		{"fieldValidation=Strict refuses, naming all of them: 400", func(o *oddities) {
			o.refuses("POST", o.path+"?fieldValidation=Strict", `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c","name":"d"},"daata":{}}`,
				answer{400, metav1.StatusReasonBadRequest, `ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: duplicate field "metadata.name", unknown field "daata"`})
		}},
		{"another value of fieldValidation: 422", func(o *oddities) {
			o.refuses("POST", o.path+"?fieldValidation=Nope", `{"metadata":{"name":"c"}}`,
				answer{422, metav1.StatusReasonInvalid, `CreateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Nope": supported values: "", "Ignore", "Strict", "Warn"`})
		}},
		{"Strict refuses an update with an unknown field: 400", func(o *oddities) {
			o.warns("", "", `{"metadata":{"name":"c"}}`)
			o.refuses("PUT", o.path+"/c?fieldValidation=Strict", `{"metadata":{"name":"c"},"daata":{}}`,
				answer{400, metav1.StatusReasonBadRequest, `ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "daata"`})
		}},
		{"Strict refuses a strategic merge patch with an unknown field, which it shows: 422", func(o *oddities) {
			o.warns("", "", `{"metadata":{"name":"c"}}`)
			o.refuses("PATCH", o.path+"/c?fieldValidation=Strict", `{"daata":{"n":5}}`,
				answer{422, metav1.StatusReasonInvalid, ` "" is invalid: patch: Invalid value: "map[daata:map[n:5]]": strict decoding error: unknown field "daata"`},
				"Content-Type", string(types.StrategicMergePatchType))
		}},
		{"a patch with an unknown field, and with one that comes twice, has warnings", func(o *oddities) {
			o.warns("", "", `{"metadata":{"name":"c"}}`)
			for _, patch := range []types.PatchType{types.StrategicMergePatchType, types.MergePatchType} {
				got := warningsOf(o.send("PATCH", o.path+"/c", `{"daata":{},"data":{"a":"1","a":"2"}}`, "Content-Type", string(patch)))
				o.wantEqual(string(patch), got, `duplicate field "data.a", unknown field "daata"`)
			}
		}},
		{"a TokenRequest with an unknown field is granted, with a warning", func(o *oddities) {
			uri := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/default/token", o.NS)
			result := o.send("POST", uri, `{"spec":{"audience":["vault"]}}`)
			o.must(result.Error())
			o.wantEqual("warnings", warningsOf(result), `unknown field "spec.audience"`)
			o.refuses("POST", uri+"?fieldValidation=Strict", `{"spec":{"audience":["vault"]}}`,
				answer{400, metav1.StatusReasonBadRequest, `TokenRequest in version "v1" cannot be handled as a TokenRequest: strict decoding error: unknown field "spec.audience"`})
		}},
	} {
		out = append(out, Case{Group: "field validation", Name: c.name, Run: func(w *World) {
			c.run(&oddities{w, "/api/v1/namespaces/" + w.NS + "/configmaps"})
		}})
	}
	return out
}

// oddities sends configmaps with odd fields.
type oddities struct {
	*World
	path string
}

// warns creates one, and checks the warnings.
func (o *oddities) warns(want, query, body string) {
	result := o.send("POST", o.path+query, body)
	o.must(result.Error())
	o.wantEqual("warnings", warningsOf(result), want)
}

func (o *oddities) refuses(verb, uri, body string, want answer, headers ...string) {
	o.wantRefusal(o.send(verb, uri, body, headers...).Error(), want)
}
