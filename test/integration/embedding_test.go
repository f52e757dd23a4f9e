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
// started gets the Projector, on a goroutine of its own; and the next one if somebody deletes the directory: what waits for the
// one before ends with ErrEnded.
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
			go started(p, root)
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
	pod := w.pod("demo", "web", tokenVolume("vault", "vault", 7200))
	e := embed(w, config)
	e.mount(pod)
	if err := os.RemoveAll(w.root); err != nil {
		t.Fatal(err)
	}
	e.mount(pod)
	if requests := w.api.Requests(fakeapi.TokenRequests); len(requests) != 4 {
		t.Errorf("%d token requests for two tokens and a root that was deleted once", len(requests))
	}
	e.end()

	if err := w.api.Delete(pod, atOnce()); err != nil {
		t.Fatal(err)
	}
	e = embed(w, config)
	p, _ := e.next()
	var stopped []types.UID
	if err := afterRestart(t.Context(), p, func(uid types.UID) error { stopped = append(stopped, uid); return nil }); err != nil {
		t.Error(err)
	}
	if len(stopped) != 1 || stopped[0] != pod.UID {
		t.Errorf("stopped %q, want %s", stopped, pod.UID)
	}
	w.waitGone(pod)
	e.end()
}

// embedded is a run of keepTokens.
type embedded struct {
	*world
	cancel func()
	runs   chan func() (*projector.Projector, *projector.Root)
	ended  chan error
}

func embed(w *world, config *rest.Config) *embedded {
	e := &embedded{world: w, runs: make(chan func() (*projector.Projector, *projector.Root)), ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(w.t.Context())
	e.cancel = cancel
	go func() {
		e.ended <- keepTokens(ctx, config, node, w.root, func(p *projector.Projector, root *projector.Root) {
			e.runs <- func() (*projector.Projector, *projector.Root) { return p, root }
		})
	}()
	return e
}

// next waits for the next Projector.
func (e *embedded) next() (*projector.Projector, *projector.Root) {
	e.t.Helper()
	select {
	case run := <-e.runs:
		return run()
	case err := <-e.ended:
		e.t.Fatalf("it ended by %v", err)
		return nil, nil
	}
}

// mount waits until the pod may start with the next Projector, and looks at what there is to mount.
func (e *embedded) mount(pod *corev1.Pod) {
	e.t.Helper()
	p, root := e.next()
	directories, err := beforeStart(e.t.Context(), p, root, pod)
	if err != nil || len(directories) != 2 {
		e.t.Fatalf("%d directories to mount: %v", len(directories), err)
	}
	if _, err := os.Stat(filepath.Join(directories["vault"], "token")); err != nil {
		e.t.Error(err)
	}
}

func (e *embedded) end() {
	e.t.Helper()
	e.cancel()
	if err := <-e.ended; err != nil {
		e.t.Errorf("it ended by %v", err)
	}
}
