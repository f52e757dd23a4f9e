package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// patience bounds each wait for something that must come.
const patience = 2 * time.Minute

// namespace is where the pods are.
const namespace = "token-projector-load"

// daemonLog is the file for what all daemons say.
const daemonLog = "daemon.log"

// world is a server, a daemon and the daemon's root.
type world struct {
	o                          *options
	dir, root                  string
	log                        io.WriteCloser // of all daemons; nil: nobody reads it
	kubeconfig, nodeKubeconfig string
	server                     *program // nil: a real one, which is not ours
	daemon                     *daemon  // nil: none was started
	client                     kubernetes.Interface
	created                    int  // pods so far
	single                     bool // pods have no injected token
	pods                       []*corev1.Pod
}

// newWorld starts the fake server, with flags of its own, or takes the real one. The caller closes it.
func newWorld(ctx context.Context, o *options, flags ...string) (*world, error) {
	w := &world{o: o, kubeconfig: o.kubeconfig, nodeKubeconfig: o.nodeKubeconfig}
	if err := w.begin(ctx, flags); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) begin(ctx context.Context, flags []string) (err error) {
	if w.dir, err = memoryDir(); err != nil {
		return err
	}
	w.root = filepath.Join(w.dir, "root")
	if w.o.out != "" {
		if w.log, err = os.OpenFile(filepath.Join(w.o.out, daemonLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
			return err
		}
	}
	if w.kubeconfig == "" {
		if err := w.startServer(ctx, flags); err != nil {
			return err
		}
	}
	config, err := w.config(w.kubeconfig)
	if err != nil {
		return err
	}
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	return w.makeNamespace(ctx)
}

func (w *world) startServer(ctx context.Context, flags []string) (err error) {
	w.kubeconfig, w.nodeKubeconfig = filepath.Join(w.dir, "admin"), filepath.Join(w.dir, "node")
	w.server, err = start([]string{"serving on"}, nil, w.o.server, append([]string{
		"--kubeconfig-out", w.nodeKubeconfig, "--admin-kubeconfig-out", w.kubeconfig, "--node", w.o.node}, flags...)...)
	if err != nil {
		return err
	}
	_, err = w.server.line(ctx)
	return err
}

// config is a client's without a limit of its own.
func (w *world) config(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return config, nil
}

// memoryDir is a fresh directory, in memory if the machine has such a place.
func memoryDir() (string, error) {
	dir, err := os.MkdirTemp("/dev/shm", "token-projector-load-")
	if err != nil {
		dir, err = os.MkdirTemp("", "token-projector-load-")
	}
	return dir, err
}

// makeNamespace waits for what pods need there.
func (w *world) makeNamespace(ctx context.Context) error {
	_, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("make the namespace: %w", err)
	}
	for end := time.Now().Add(patience); ; {
		_, aerr := w.client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		_, cerr := w.client.CoreV1().ConfigMaps(namespace).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		switch err := cmp.Or(aerr, cerr); {
		case err == nil:
			return nil
		case !apierrors.IsNotFound(err), time.Now().After(end):
			return fmt.Errorf("wait for the namespace's account and root certificates: %w", err)
		}
		time.Sleep(eye)
	}
}

// close ends the programs, as they must end, and leaves nothing behind.
func (w *world) close() (err error) {
	if w.daemon != nil {
		err = errors.Join(err, w.daemon.stop())
		w.daemon.kill()
	}
	if w.client != nil && w.server == nil {
		err = errors.Join(err, w.deletePods(context.Background()),
			w.client.CoreV1().Namespaces().Delete(context.Background(), namespace, metav1.DeleteOptions{}))
	}
	if w.server != nil {
		_ = w.server.cmd.Process.Signal(syscall.SIGCONT) // it may have been stopped
		err = errors.Join(err, w.server.stop())
		w.server.kill()
	}
	if w.log != nil {
		err = errors.Join(err, w.log.Close())
	}
	if w.dir != "" {
		err = errors.Join(err, os.RemoveAll(w.dir))
	}
	return err
}

func (w *world) programs() (all []*program) {
	if w.server != nil {
		all = append(all, w.server)
	}
	if w.daemon != nil {
		all = append(all, w.daemon.program)
	}
	return all
}

// died is the first program that has ended by itself.
func (w *world) died() error {
	for _, p := range w.programs() {
		if err := p.died(); err != nil {
			return err
		}
	}
	return nil
}
