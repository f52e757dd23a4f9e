package cases

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// at is how a wireWatch shows an event.
func at(kind watch.EventType, obj metav1.Object) string {
	return string(kind) + " " + obj.GetName() + "@" + obj.GetResourceVersion()
}

func streams() []Case {
	cases := []Case{
		{Group: watchGroup, Name: "WATCH is answered in JSON without a parameter", Run: contentType(runtime.ContentTypeJSON, "application/json")},
		{Group: watchGroup, Name: "WATCH is answered in protobuf with stream=watch", Run: contentType(runtime.ContentTypeProtobuf, "application/vnd.kubernetes.protobuf;stream=watch")},
		{Group: watchGroup, Name: "WATCH in YAML: 406", Run: func(w *World) {
			resp := w.open(w.configMaps()+"?watch=true", runtime.ContentTypeYAML)
			defer resp.Body.Close()
			w.wantEqual("code", resp.StatusCode, 406)
		}},
		{Group: watchGroup, Name: "a bookmark has nothing but kind, version and annotation", Run: bookmarkOnTheWire},
		{Group: watchGroup, Name: "a removed object is DELETED with its last state, at the version of its removal", Run: deletedEvent},
		{Group: watchGroup, Name: "a bookmark comes two seconds before the end of a watch", Run: lastBookmark},
		{Group: watchGroup, Name: "a watch ends after timeoutSeconds, without a word", Run: watchEnds},
		{Group: watchGroup, Name: "LIST of a future version: 504 after three seconds, with the cause ResourceVersionTooLarge", Run: func(w *World) {
			tooLarge(w, func() metav1.Status { return w.refusalOf(w.configMaps() + "?resourceVersion=" + future) })
		}},
		{Group: watchGroup, Name: "GET of a future version: the same", Run: func(w *World) {
			w.createConfigMap("a")
			tooLarge(w, func() metav1.Status { return w.refusalOf(w.configMaps() + "/a?resourceVersion=" + future) })
		}},
		{Group: watchGroup, Name: "a streaming list of a future version: the same as an ERROR event", Run: func(w *World) {
			tooLarge(w, func() metav1.Status {
				ww := w.watchWire("", streamingList+"&resourceVersion="+future)
				defer ww.close()
				_, obj := ww.next()
				st, ok := obj.(*metav1.Status)
				if !ok {
					w.Fatalf("the watch sent a %T", obj)
				}
				return *st
			})
		}},
		{Group: watchGroup, Name: "LIST of a version that comes within three seconds waits for it", Run: nearFuture},
	}
	for _, mediaType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		cases = append(cases, Case{Group: watchGroup, Flags: late, Name: "WATCH from a version before the server's start: an ERROR event of 410 Expired (" + mediaType + ")", Run: func(w *World) { tooOld(w, mediaType) }})
	}
	for _, c := range []struct {
		name, mediaType, query string
		initial, end           bool
	}{
		{"a streaming list: all objects as ADDED, a bookmark that says so, then what happens (JSON)", runtime.ContentTypeJSON, streamingList, true, true},
		{"a streaming list: all objects as ADDED, a bookmark that says so, then what happens (protobuf)", runtime.ContentTypeProtobuf, streamingList, true, true},
		{"a streaming list not older than version 1 is as good as any", "", streamingList + "&resourceVersion=1", true, true},
		{"a streaming list without bookmarks: no bookmark", "", "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, false},
		{"WATCH without a version is a streaming list", "", "&allowWatchBookmarks=true", true, true},
		{"WATCH from version 0 is a streaming list", "", "&allowWatchBookmarks=true&resourceVersion=0", true, true},
		{"WATCH without initial events begins now", "", "&allowWatchBookmarks=true&sendInitialEvents=false&resourceVersionMatch=NotOlderThan", false, false},
	} {
		cases = append(cases, Case{Group: watchGroup, Name: c.name, Run: func(w *World) { initialEvents(w, c.mediaType, c.query, c.initial, c.end) }})
	}
	return append(cases, Case{Group: watchGroup, Name: "WATCH from a version: everything after it, in order", Run: watchFromVersion})
}

func contentType(accept, want string) func(*World) {
	return func(w *World) {
		ww := w.watchWire(accept, "")
		defer ww.close()
		w.wantEqual("content type", ww.resp.Header.Get("Content-Type"), want)
	}
}

// initialEvents opens a watch where there are two objects, and makes a third.
func initialEvents(w *World, mediaType, query string, initial, end bool) {
	a, b := w.createConfigMap("a"), w.createConfigMap("b")
	ww := w.watchWire(mediaType, query)
	defer ww.close()
	live := w.createConfigMap("live")
	w.createConfigMap("last")
	var want []string
	if initial {
		want = append(want, at(watch.Added, a), at(watch.Added, b))
	}
	if end {
		want = append(want, "BOOKMARK end")
	}
	w.wantEqual("events", ww.lines("last"), append(want, at(watch.Added, live)))
}

func watchFromVersion(w *World) {
	a := w.createConfigMap("a")
	b := w.createConfigMap("b")
	changed := w.changeConfigMap(a, "2")
	w.deleteConfigMap("b")
	again := w.createConfigMap("b")
	ww := w.watchWire("", "&resourceVersion="+a.ResourceVersion)
	defer ww.close()
	w.createConfigMap("last")
	got := ww.lines("last")
	if len(got) == 4 && strings.HasPrefix(got[2], "DELETED b@") {
		w.wantNewer(strings.TrimPrefix(got[2], "DELETED b@"), changed.ResourceVersion)
		got[2] = "DELETED b"
	}
	w.wantEqual("events", got, []string{at(watch.Added, b), at(watch.Modified, changed), "DELETED b", at(watch.Added, again)})
}

func deletedEvent(w *World) {
	ww := w.watchWire("", streamingList)
	defer ww.close()
	ww.lines("")
	cm := w.changeConfigMap(w.createConfigMap("a"), "2")
	w.deleteConfigMap("a")
	for {
		kind, obj := ww.next()
		if kind != watch.Deleted {
			continue
		}
		got := obj.(*corev1.ConfigMap)
		w.wantEqual("last state", got.Data, cm.Data)
		w.wantNewer(got.ResourceVersion, cm.ResourceVersion)
		return
	}
}

// late are the flags of a server that is started when there are objects already: to it version 1 is too old, while the
// first server of a cluster has seen everything.
var late = &Flags{Issuers: Usual.Issuers, Algs: Usual.Algs}

// tooOld watches from the version of an empty cluster.
func tooOld(w *World, mediaType string) {
	ww := w.watchWire(mediaType, "&resourceVersion=1")
	defer ww.close()
	kind, obj := ww.next()
	w.wantEqual("kind of event", kind, watch.Error)
	st, ok := obj.(*metav1.Status)
	if !ok {
		w.Fatalf("got %T, want a Status", obj)
	}
	var oldest uint64
	if _, err := fmt.Sscanf(st.Message, "too old resource version: 1 (%d)", &oldest); err != nil || oldest <= 1 {
		w.Errorf("message %q", st.Message)
	}
	w.wantEqual("status", answer{st.Code, st.Reason, ""}, answer{410, metav1.StatusReasonExpired, ""})
	if _, err := ww.resp.Body.Read(make([]byte, 1)); err != io.EOF {
		w.Errorf("after the error: %v", err)
	}
}

func bookmarkOnTheWire(w *World) {
	resp := w.open(w.configMaps()+"?watch=true&fieldSelector=metadata.name%3Dnone"+streamingList, runtime.ContentTypeJSON)
	defer resp.Body.Close()
	var event json.RawMessage
	w.must(json.NewDecoder(resp.Body).Decode(&event))
	var e struct{ Object metav1.PartialObjectMetadata }
	w.must(json.Unmarshal(event, &e))
	w.wantEqual("event", string(event), `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"`+
		e.Object.ResourceVersion+`","annotations":{"k8s.io/initial-events-end":"true"}}}}`)
}

func lastBookmark(w *World) {
	cm := w.createConfigMap("a")
	for tries := 3; ; tries-- {
		early := 4*time.Second - bookmarkAfter(w, cm)
		if early < 500*time.Millisecond && tries > 1 {
			continue // it may have come long before it was read
		}
		// The real server looks once a second.
		if early > 3*time.Second || early < 500*time.Millisecond {
			w.Errorf("the bookmark came %v before the end", early)
		}
		return
	}
}

// bookmarkAfter is how long after its request a watch of four seconds sends its bookmark.
func bookmarkAfter(w *World, cm *corev1.ConfigMap) time.Duration {
	began := time.Now()
	ww := w.watchWire("", "&allowWatchBookmarks=true&timeoutSeconds=4&resourceVersion="+cm.ResourceVersion)
	defer ww.close()
	kind, obj := ww.next()
	took := time.Since(began)
	m, err := meta.Accessor(obj)
	w.must(err)
	w.wantEqual("event", string(kind)+" "+m.GetName(), "BOOKMARK ")
	w.wantEqual("annotations", len(m.GetAnnotations()), 0)
	return took
}

func watchEnds(w *World) {
	cm := w.createConfigMap("a")
	began := time.Now()
	ww := w.watchWire("", "&timeoutSeconds=1&resourceVersion="+cm.ResourceVersion)
	defer ww.close()
	rest, err := io.ReadAll(ww.resp.Body)
	if took := time.Since(began); len(rest) > 0 || err != nil || took < time.Second {
		w.Errorf("got %q, %w, after %v", rest, err, took)
	}
}

// future is a version that nobody will reach.
const future = "4000000000"

// tooLarge checks what is asked about the future.
func tooLarge(w *World, ask func() metav1.Status) {
	began := time.Now()
	st := ask()
	if took := time.Since(began); took < 2500*time.Millisecond {
		w.Errorf("answered after %v", took)
	}
	if !strings.HasPrefix(st.Message, "Timeout: Too large resource version: "+future+", current: ") || st.Details == nil {
		w.Fatalf("got %+v", st)
	}
	w.wantEqual("status", answer{st.Code, st.Reason, ""}, answer{504, metav1.StatusReasonTimeout, ""})
	w.wantEqual("details", *st.Details, metav1.StatusDetails{RetryAfterSeconds: 1, Causes: []metav1.StatusCause{
		{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}})
}

func nearFuture(w *World) {
	now, err := strconv.ParseUint(w.createConfigMap("a").ResourceVersion, 10, 64)
	w.must(err)
	sent, wrote := context.WithCancel(w.Ctx)
	defer wrote()
	ctx := httptrace.WithClientTrace(w.Ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { wrote() }})
	list, done := &corev1.ConfigMapList{}, make(chan error, 1)
	go func() {
		done <- w.Client.CoreV1().RESTClient().Get().Namespace(w.NS).Resource("configmaps").
			Param("resourceVersion", fmt.Sprint(now+5)).MaxRetries(0).Do(ctx).Into(list) // the client would try a refused one again
	}()
	<-sent.Done()
	for i := range 5 { // the changes of other cases may do as well
		w.createConfigMap(fmt.Sprintf("b-%d", i))
	}
	w.must(<-done)
	w.wantNewer(list.ResourceVersion, fmt.Sprint(now+4))
}
