package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// burst is some rounds with one number of pods.
type burst struct {
	pods    int
	took    []time.Duration // from the POST of a pod to each of its tokens, of all rounds
	rounds  []round
	refused map[string]float64 // TokenRequests of the daemon, by code: a real server may not know of a pod yet that it has shown
}

// round is one burst, and the floor beside it.
type round struct {
	p99    time.Duration // of the tokens of this round
	create time.Duration // from the first POST to the last answer
	whole  time.Duration // from the first POST to the last token
	floor  time.Duration // bare time of as many TokenRequests
}

// kubelet is the p99 of the kubelet 1.37 on another machine of two cores, with the same pods, server and reader.
var kubelet = map[int]time.Duration{30: 605 * time.Millisecond, 110: 2292 * time.Millisecond, 250: 7101 * time.Millisecond}

// playBurst measures all numbers of pods and prints a row for each.
func playBurst(ctx context.Context, o *options, out io.Writer) (err error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	floor, err := w.nodeClient()
	if err != nil {
		return err
	}
	d, err := w.startDaemon(ctx)
	if err != nil {
		return err
	}
	if err := d.ready(ctx); err != nil {
		return err
	}
	var all []*burst
	var wrong []string
	// The first of all goes uncounted: connections are made in it, and the server's caches filled.
	for _, n := range slices.Concat([]int{0}, o.pods) {
		b := &burst{pods: max(n, o.pods[0]), refused: map[string]float64{}}
		for i := 0; i < o.rounds && (n > 0 || i < 1); i++ {
			w, err := b.play(ctx, w, floor)
			if err != nil {
				return err
			}
			wrong = append(wrong, w...)
		}
		if n > 0 {
			all = append(all, b)
		}
	}
	printBurst(out, o, all)
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n  "))
	}
	return nil
}

// nodeClient is a stock client that is the node.
func (w *world) nodeClient() (kubernetes.Interface, error) {
	config, err := w.config(w.nodeKubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// play is one round: the pods come, the same tokens are requested bare, the pods go.
func (b *burst) play(ctx context.Context, w *world, floor kubernetes.Interface) (wrong []string, err error) {
	before, err := w.daemon.scrape()
	if err != nil {
		return nil, err
	}
	var one round
	begun := time.Now()
	r, created, err := w.createAndRead(ctx, b.pods)
	if err != nil {
		return nil, err
	}
	one.create = created.Sub(begun)
	for _, f := range r.files {
		one.whole = max(one.whole, f.first.Sub(begun))
	}
	after, err := w.daemon.scrape()
	if err != nil {
		return nil, err
	}
	for code, n := range after.by("token_requests_total") {
		switch n -= before.by("token_requests_total")[code]; {
		case code == "201" && n != float64(2*b.pods):
			wrong = append(wrong, fmt.Sprintf("%.0f TokenRequests were granted for %d tokens", n, 2*b.pods))
		case code != "201" && n > 0:
			b.refused[code] += n
		}
	}
	if one.floor, err = bare(ctx, floor, w.pods); err != nil {
		return nil, err
	}
	r.sweep()
	took := r.firsts(begun)
	one.p99 = percentile(took, 0.99)
	b.took, b.rounds = append(b.took, took...), append(b.rounds, one)
	return append(wrong, r.wrong()...), w.empty(ctx)
}

// createAndRead makes n pods, and looks for each token every 20 ms until it is there. It also returns when the last pod was
// created.
func (w *world) createAndRead(ctx context.Context, n int) (r *reader, created time.Time, err error) {
	r = &reader{root: w.root, every: eye}
	told, done := make(chan creation, n), make(chan error, 1)
	go func() {
		_, err := w.create(ctx, n, day, told) // so long that none is refreshed in the burst
		created = time.Now()
		done <- err
	}()
	var wanted []*file
	err = w.daemon.await(ctx, "the tokens of all pods", eye, func() (bool, error) {
		for len(told) > 0 {
			c := <-told
			files := filesOf(w.root, c.pod, c.asked)
			r.files, wanted = append(r.files, files...), append(wanted, files...)
		}
		wanted = slices.DeleteFunc(wanted, func(f *file) bool {
			r.look(f)
			return !f.first.IsZero()
		})
		return len(r.files) == 2*n && len(wanted) == 0, w.died()
	})
	return r, created, errors.Join(err, <-done)
}

// bare is the time of a TokenRequest for each token of the pods, sent by client-go and the node, as many in flight as the
// daemon's.
func bare(ctx context.Context, client kubernetes.Interface, pods []*corev1.Pod) (time.Duration, error) {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(inFlight)
	begun := time.Now()
	for _, pod := range pods {
		for _, spec := range tokensOf(pod) {
			g.Go(func() error {
				_, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, pod.Spec.ServiceAccountName,
					&authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
				return err
			})
		}
	}
	err := g.Wait()
	return time.Since(begun), err
}

// tokensOf are the requests for the tokens of a pod.
func tokensOf(pod *corev1.Pod) (all []authenticationv1.TokenRequestSpec) {
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if t := s.ServiceAccountToken; t != nil {
				spec := authenticationv1.TokenRequestSpec{
					ExpirationSeconds: t.ExpirationSeconds,
					BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
				}
				if t.Audience != "" {
					spec.Audiences = []string{t.Audience}
				}
				all = append(all, spec)
			}
		}
	}
	return all
}

// empty takes all pods away, and waits until nothing of them is on disk.
func (w *world) empty(ctx context.Context) error {
	if err := w.deletePods(ctx); err != nil {
		return err
	}
	return w.daemon.await(ctx, "the pods' directories to go", eye, func() (bool, error) {
		left, err := os.ReadDir(filepath.Join(w.root, "pods"))
		return len(left) == 0, err
	})
}

// of sorts one figure of all rounds.
func (b *burst) of(figure func(round) time.Duration) []time.Duration {
	var all []time.Duration
	for _, r := range b.rounds {
		all = append(all, figure(r))
	}
	slices.Sort(all)
	return all
}

func printBurst(out io.Writer, o *options, all []*burst) {
	server := "the fake API server"
	if o.kubeconfig != "" {
		server = "a real API server"
	}
	fmt.Fprintf(out, "\nOn %s; %d bursts of each size; %d requests in flight; the floor is their median.\n\n", server, o.rounds, inFlight)
	row(out, "pods, tokens", "floor: s, requests/s", "POST to readable, s: 50 %, 95 %, 99 %, worst", "99 % ÷ floor (of each burst: least to most)",
		"pods created, s", "first POST to last token, s; ÷ (pods created + floor)", "TokenRequests refused at first, per burst", "kubelet: 99 %, s; ÷ ours")
	row(out, slices.Repeat([]string{"---"}, 8)...)
	for _, b := range all {
		slices.Sort(b.took)
		median := func(figure func(round) time.Duration) time.Duration { return percentile(b.of(figure), 0.5) }
		floor, create, whole := median(func(r round) time.Duration { return r.floor }), median(func(r round) time.Duration { return r.create }), median(func(r round) time.Duration { return r.whole })
		p99 := percentile(b.took, 0.99)
		ratios := b.of(func(r round) time.Duration { return r.p99 * time.Second / r.floor })
		refused := "none"
		for _, code := range slices.Sorted(maps.Keys(b.refused)) {
			refused = strings.TrimPrefix(refused+fmt.Sprintf(", %.1f × %s", b.refused[code]/float64(o.rounds), code), "none, ")
		}
		theirs := "not measured"
		if k := kubelet[b.pods]; k > 0 {
			theirs = fmt.Sprintf("%.2f; %.1f", k.Seconds(), k.Seconds()/p99.Seconds())
		}
		row(out, fmt.Sprintf("%d, %d", b.pods, 2*b.pods), fmt.Sprintf("%.3f, %.0f", floor.Seconds(), float64(2*b.pods)/floor.Seconds()),
			seconds(b.took, 0.5, 0.95, 0.99, 1), fmt.Sprintf("%.2f (%.2f to %.2f)", p99.Seconds()/floor.Seconds(), ratios[0].Seconds(), ratios[len(ratios)-1].Seconds()),
			fmt.Sprintf("%.3f", create.Seconds()), fmt.Sprintf("%.3f; %.2f", whole.Seconds(), whole.Seconds()/(create+floor).Seconds()), refused, theirs)
	}
}
