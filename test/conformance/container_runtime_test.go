//go:build e2e

package conformance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg/fake"
)

// containerRuntime is the fake runtime of the kubelet's own tests, which keeps books and runs nothing, with the one thing
// added that a volume needs: when a container is created its mounts are made, by bind, as a runtime makes them, below a
// directory that stands for its file system. They go when the container stops.
type containerRuntime struct {
	*fake.RemoteRuntime
	dir string // a directory for each container, DIR/POD UID/CONTAINER

	mu         sync.Mutex // guards what follows
	containers map[string]*fakeContainer
}

type fakeContainer struct {
	root    string   // its file system
	mounted []string // in the order of mounting
	logPath string
	mounts  []*cri.Mount
	started bool
}

// startRuntime serves a runtime on a socket in a directory, until the test's end.
func startRuntime(t *testing.T, dir string) (r *containerRuntime, endpoint string) {
	t.Helper()
	r = &containerRuntime{
		RemoteRuntime: fake.NewFakeRemoteRuntime(),
		dir:           filepath.Join(dir, "containers"),
		containers:    map[string]*fakeContainer{},
	}
	r.ImageService.SetFakeImageSize(1) // an image of no size is no image
	r.RuntimeService.FakeStatus = &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{
		{Type: cri.RuntimeReady, Status: true},
		{Type: cri.NetworkReady, Status: true},
	}}
	socket := filepath.Join(dir, "cri.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, r)
	cri.RegisterImageServiceServer(server, r)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Errorf("the container runtime: %v", err)
		}
	})
	return r, "unix://" + socket
}

// CreateContainer also makes the container's mounts.
func (r *containerRuntime) CreateContainer(ctx context.Context, req *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	answer, err := r.RemoteRuntime.CreateContainer(ctx, req)
	if err != nil {
		return nil, err
	}
	c := &fakeContainer{
		root:    r.root(req.SandboxConfig.Metadata.Uid, req.Config.Metadata.Name),
		logPath: filepath.Join(req.SandboxConfig.LogDirectory, req.Config.LogPath),
		mounts:  req.Config.Mounts,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.containers[answer.ContainerId] = c
	for _, m := range req.Config.Mounts {
		if err := c.mount(m); err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.ContainerPath, errors.Join(err, c.unmount()))
		}
	}
	return answer, nil
}

// StartContainer notes that the container runs.
func (r *containerRuntime) StartContainer(ctx context.Context, req *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	answer, err := r.RemoteRuntime.StartContainer(ctx, req)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.containers[req.ContainerId].started = true
	}
	return answer, err
}

// StopContainer also unmounts what CreateContainer has mounted.
func (r *containerRuntime) StopContainer(ctx context.Context, req *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	answer, err := r.RemoteRuntime.StopContainer(ctx, req)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return answer, r.containers[req.ContainerId].unmount()
}

// ContainerStatus also says where the log would be: without a path the kubelet's cleaner of logs takes those of its working
// directory for them.
func (r *containerRuntime) ContainerStatus(ctx context.Context, req *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	answer, err := r.RemoteRuntime.ContainerStatus(ctx, req)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[req.ContainerId]
	answer.Status.LogPath, answer.Status.Mounts = c.logPath, c.mounts
	return answer, nil
}

func (r *containerRuntime) root(podUID, container string) string {
	return filepath.Join(r.dir, podUID, container)
}

// running says whether a pod's container has been started.
func (r *containerRuntime) running(podUID, container string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		if c.root == r.root(podUID, container) && c.started {
			return true
		}
	}
	return false
}

func (c *fakeContainer) mount(m *cri.Mount) error {
	place := filepath.Join(c.root, m.ContainerPath)
	info, err := os.Stat(m.HostPath)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(place, 0o755)
	} else {
		err = errors.Join(os.MkdirAll(filepath.Dir(place), 0o755), os.WriteFile(place, nil, 0o644))
	}
	if err != nil {
		return err
	}
	// Not recursively: what is mounted below later does not come in, and nothing is yet.
	if err := unix.Mount(m.HostPath, place, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	c.mounted = append(c.mounted, place)
	if m.Readonly {
		return unix.Mount("", place, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	}
	return nil
}

// unmount unmounts everything. A second call does nothing.
func (c *fakeContainer) unmount() error {
	var errs []error
	for i := len(c.mounted) - 1; i >= 0; i-- {
		errs = append(errs, unix.Unmount(c.mounted[i], unix.MNT_DETACH))
	}
	c.mounted = nil
	return errors.Join(errs...)
}
