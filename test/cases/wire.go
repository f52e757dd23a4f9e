package cases

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	restwatch "k8s.io/client-go/rest/watch"
)

// open sends a GET of path as the administrator. The caller closes the answer's body.
func (w *World) open(path, accept string) *http.Response {
	client, err := rest.HTTPClientFor(w.Admin)
	w.must(err)
	req, err := http.NewRequestWithContext(w.Ctx, http.MethodGet, w.Admin.Host+path, nil)
	w.must(err)
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	w.must(err)
	return resp
}

// refusalOf is the Status that a GET of path is answered with, and its HTTP code must say the same.
func (w *World) refusalOf(path string) metav1.Status {
	resp := w.open(path, runtime.ContentTypeJSON)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	w.must(err)
	st := metav1.Status{}
	if err := json.Unmarshal(body, &st); err != nil || st.Kind != "Status" || int(st.Code) != resp.StatusCode {
		w.Fatalf("%s: got %d %.300s", path, resp.StatusCode, body)
	}
	return st
}

func answerOf(st metav1.Status) answer { return answer{st.Code, st.Reason, st.Message} }

// wireWatch is a watch that is read from the wire.
type wireWatch struct {
	w       *World
	resp    *http.Response
	decoder *restwatch.Decoder
}

// watchWire opens a watch of the namespace's ConfigMaps, kube-root-ca.crt apart, in a media type, JSON for "".
func (w *World) watchWire(accept, query string) *wireWatch {
	if accept == "" {
		accept = runtime.ContentTypeJSON
	}
	resp := w.open(w.configMaps()+"?watch=true&fieldSelector=metadata.name!%3Dkube-root-ca.crt"+query, accept)
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body) // the code alone is bad enough
		resp.Body.Close()
		w.Fatalf("watch%s: got %d %.300s", query, resp.StatusCode, body)
	}
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	info, ok := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	if !ok || mediaType != accept {
		resp.Body.Close()
		w.Fatalf("watch%s: answered in %q", query, mediaType)
	}
	frames := streaming.NewDecoder(info.StreamSerializer.Framer.NewFrameReader(resp.Body), info.StreamSerializer.Serializer)
	return &wireWatch{w, resp, restwatch.NewDecoder(frames, scheme.Codecs.UniversalDeserializer())}
}

func (w *World) configMaps() string { return "/api/v1/namespaces/" + w.NS + "/configmaps" }

// next is the next event. Its object is a Status for ERROR.
func (ww *wireWatch) next() (watch.EventType, runtime.Object) {
	kind, obj, err := ww.decoder.Decode()
	if err != nil {
		ww.close()
		ww.w.Fatalf("next event: %w", err)
	}
	return kind, obj
}

// lines reads events until the one of the object last, as TYPE NAME@VERSION.
func (ww *wireWatch) lines(last string) []string {
	var out []string
	for {
		kind, obj := ww.next()
		m, err := meta.Accessor(obj)
		if err != nil {
			ww.close()
			ww.w.Fatalf("after %q: got %s %+v", out, kind, obj)
		}
		if m.GetName() == last && last != "" {
			return out
		}
		line := string(kind) + " " + m.GetName() + "@" + m.GetResourceVersion()
		if m.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
			line = string(kind) + " end"
		}
		out = append(out, line)
		if line == "BOOKMARK end" && last == "" {
			return out
		}
	}
}

func (ww *wireWatch) close() { ww.resp.Body.Close() }
