package integration

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/token-projector/token-projector/projector"
	"github.com/token-projector/token-projector/rotation"
	"github.com/token-projector/token-projector/test/fakeapi"
)

// What docs/embedding.md shows is from here on; its test compares them.

// keepTokens keeps the token volumes of a node's pods below dir until ctx ends. config holds the node's own credentials.
// started is told of each Projector, and of the next one if somebody deletes the directory.
func keepTokens(ctx context.Context, config *rest.Config, node, dir string, started func(*projector.Projector, *projector.Root)) error {
	clock := rotation.SystemClock()
	var running atomic.Pointer[projector.Projector]
	config = rest.CopyConfig(config)
	config.QPS = -1 // the Projector bounds its requests itself
	config.Wrap(func(rt http.RoundTripper) http.RoundTripper {
		return projector.HearServer(rt, clock, func(server time.Time, sent, received rotation.Time) {
			running.Load().Hear(server, sent, received)
		})
	})
	client, err := projector.NewClient(config)
	if err != nil {
		return err
	}
	for {
		root, err := projector.OpenRoot(ctx, dir, nil) // waits while another process has it
		if err != nil {
			return err
		}
		p, err := projector.New(projector.Config{
			NodeName: node, Root: root, Client: client, Clock: clock, AwaitStopped: true,
			Mint:       projector.NewMint(client.Core, 10*time.Second),
			AccountUID: projector.NewAccountUID(client.Core, 10*time.Second),
		})
		if err == nil {
			running.Store(p)
			started(p, root)
			err = p.Run(ctx)
		}
		if err := errors.Join(err, root.Close()); !errors.Is(err, projector.ErrRootReplaced) {
			return err
		}
	}
}

// beforeStart waits until the pod's containers may start, and returns what to mount for each of its projected token volumes.
func beforeStart(ctx context.Context, p *projector.Projector, root *projector.Root, pod *corev1.Pod) (map[string]string, error) {
	if err := p.WaitReady(ctx, pod.UID); err != nil {
		return nil, err // says which volume, and what it lacks
	}
	directories := map[string]string{}
	for _, volume := range projector.Desired(pod, projector.SelectAll).Volumes {
		directories[volume.Name] = root.Path(projector.Key{PodUID: pod.UID, Volume: volume.Name})
	}
	return directories, nil
}

// afterRestart ends what ended while nobody was there: stop ends all that still runs of a pod.
func afterRestart(ctx context.Context, p *projector.Projector, stop func(types.UID) error) error {
	if err := p.WaitSynced(ctx); err != nil {
		return err
	}
	status, err := p.Status(ctx)
	if err != nil {
		return err
	}
	for _, pod := range status.Pods {
		if !pod.Gone {
			continue
		}
		if err := stop(pod.UID); err != nil {
			return err
		}
		p.Stopped(pod.UID) // now its directory may go
	}
	return nil
}

// TestEmbedding: the program of docs/embedding.md does what is said there: a pod starts when its tokens are there, a directory
// that is deleted is opened anew, a pod that went meanwhile is stopped, and its directory goes.
func TestEmbedding(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakeapi.Options{})
	config, err := w.api.UserConfig("system:node:"+node, "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	type run struct {
		p    *projector.Projector
		root *projector.Root
	}
	runs := make(chan run)
	begin := func() (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- keepTokens(ctx, config, node, w.root, func(p *projector.Projector, root *projector.Root) { runs <- run{p, root} })
		}()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("it ended by %v", err)
			}
		}
	}
	pod := w.pod("demo", "web", tokenVolume("vault", "vault", 7200))
	mount := func(r run) {
		t.Helper()
		directories, err := beforeStart(t.Context(), r.p, r.root, pod)
		if err != nil || len(directories) != 2 {
			t.Fatalf("%d directories to mount: %v", len(directories), err)
		}
		if _, err := os.Stat(filepath.Join(directories["vault"], "token")); err != nil {
			t.Error(err)
		}
	}

	end := begin()
	mount(<-runs)
	if err := os.RemoveAll(w.root); err != nil {
		t.Fatal(err)
	}
	second := <-runs
	mount(second)
	if requests := w.api.Requests(fakeapi.TokenRequests); len(requests) != 4 {
		t.Errorf("%d token requests for two tokens and a root that was deleted once", len(requests))
	}
	end()

	if err := w.api.Delete(pod, atOnce()); err != nil {
		t.Fatal(err)
	}
	end = begin()
	third := <-runs
	var stopped []types.UID
	if err := afterRestart(t.Context(), third.p, func(uid types.UID) error { stopped = append(stopped, uid); return nil }); err != nil {
		t.Error(err)
	}
	if len(stopped) != 1 || stopped[0] != pod.UID {
		t.Errorf("stopped %q, want %s", stopped, pod.UID)
	}
	w.waitGone(pod)
	end()
}
