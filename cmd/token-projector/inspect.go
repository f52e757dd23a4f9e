package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/token-projector/token-projector/projector"
)

// inspection is the command line of inspect.
type inspection struct {
	rootDir    string
	output     string
	watch      bool
	interval   time.Duration
	grace      time.Duration
	verify     string
	kubeconfig string
	only       string // pods of this name, namespace and name, or UID; "": all

	check      verifier // made from verify; nil: none
	unanswered int      // tokens of this look, one after the other, of which the API server said nothing
}

// outputs are the values of --output.
var outputs = []string{"table", "wide", "json", "yaml"}

func inspectCommand() *cobra.Command {
	o := &inspection{}
	c := &cobra.Command{
		Use:   "inspect [POD | NAMESPACE/POD | UID]",
		Short: "Show the tokens below a root, ours or the kubelet's; exit 1 if one is stale, expired or missing",
		Long: "Shows every projected token below a root, soonest expiry first, and never a token itself. It reads files alone: neither a\n" +
			"daemon nor an API server is needed. The kubelet's root has the same layout: --root-dir /var/lib/kubelet.\n\n" +
			"States: fresh; stale, still there --grace after its refresh was due; expired; early, not valid yet by this machine's clock;\n" +
			"foreign, it says it is of another pod; invalid, as --verify found; unverified, the API server did not say; pending,\n" +
			"nothing is published yet; missing, a volume of our own root holds no token; unreadable.\n" +
			"Any but fresh, and pending for less than --grace, is exit status 1.",
		Example: "  token-projector inspect\n  token-projector inspect -o wide team-a/web-0\n  token-projector inspect --root-dir /var/lib/kubelet --watch",
		Args:    cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			err := o.complete(args)
			if c.Flags().Changed("verify") && o.verify == "" {
				err = errors.New("--verify names nothing: give a file, an https URL or review, or leave it out")
			}
			if err != nil {
				return misuse{err}
			}
			keepPrivateOrSay(c.ErrOrStderr())
			if o.check, err = newVerifier(o.verify, o.kubeconfig); err != nil {
				return err
			}
			return o.run(c.Context(), c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.rootDir, "root-dir", defaultRoot, "root to read: ours, or the kubelet's (/var/lib/kubelet)")
	f.StringVarP(&o.output, "output", "o", "table", "table, wide, json or yaml")
	f.BoolVarP(&o.watch, "watch", "w", false, "show it again every --interval, until Ctrl-C")
	f.DurationVar(&o.interval, "interval", 2*time.Second, "pause of --watch")
	f.DurationVar(&o.grace, "grace", 2*time.Minute, "how late a refresh may be before the token is stale; the kubelet's are up to 91 s late")
	f.StringVar(&o.verify, "verify", "", "check each token: against a JWKS, of which this is the file or the https URL; or review, by the API server that --kubeconfig names")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig for --verify review: who may create tokenreviews")
	complete(c, map[string][]string{"output": outputs})
	return c
}

func (o *inspection) complete(args []string) error {
	switch {
	case len(args) > 1:
		return fmt.Errorf("unexpected argument %q; inspect takes one pod", args[1])
	case !slices.Contains(outputs, o.output):
		return fmt.Errorf("--output %q: must be table, wide, json or yaml", o.output)
	case o.interval < 100*time.Millisecond:
		return fmt.Errorf("--interval %s: must be at least 100ms", o.interval)
	case o.grace < 0:
		return fmt.Errorf("--grace %s: must not be negative", o.grace)
	}
	o.only = strings.Join(args, "")
	if strings.Count(o.only, "/") > 1 {
		return fmt.Errorf("%q names no pod; give POD, NAMESPACE/POD or UID", o.only)
	}
	return validateVerify(o.verify, o.kubeconfig)
}

// run looks, and prints what it has seen; with --watch until a signal, whatever becomes of the root. The last look is the exit status.
func (o *inspection) run(ctx context.Context, w io.Writer) error {
	timer := time.NewTimer(o.interval)
	defer timer.Stop()
	var last error
	for first := true; ; first = false {
		found, err := o.look(ctx, time.Now())
		switch {
		case o.watch && errors.Is(err, errInterrupted):
			return last
		case err != nil && (first || !o.watch):
			return err
		case err != nil:
			found.Tokens, found.Error = []sighting{}, projector.Scrub(err.Error())
		}
		if err := o.print(w, found); err != nil {
			return err
		}
		if last = o.verdict(found); !o.watch {
			return last
		}
		timer.Reset(o.interval)
		select {
		case <-ctx.Done():
			return last
		case <-timer.C:
		}
	}
}

// errInterrupted says that a look was not finished: what it has found so far may be wrong.
var errInterrupted = errors.New("interrupted")

// verdict is errFound if what was seen is not as it should be.
func (o *inspection) verdict(found sightings) error {
	wrong := slices.ContainsFunc(found.Tokens, func(t sighting) bool { return t.wrong })
	if wrong || found.Error != "" || len(found.Tokens) == 0 && o.only != "" {
		return errFound
	}
	return nil
}

// sightings is everything that a look at a root has found.
type sightings struct {
	Time   time.Time  `json:"time"` // by this machine's clock, as are the states
	Root   string     `json:"root"`
	Tokens []sighting `json:"tokens"`          // soonest expiry first
	Error  string     `json:"error,omitempty"` // why the root cannot be read, with --watch
}

// sighting is a token in its file; or, with neither Path nor Expires, a volume without any. It holds no token.
type sighting struct {
	Namespace      string    `json:"namespace,omitempty"` // as the token says, like Pod; "", like it: nobody says
	Pod            string    `json:"pod,omitempty"`
	PodUID         string    `json:"podUID"`
	Volume         string    `json:"volume,omitempty"`
	Path           string    `json:"path,omitempty"` // in the volume
	File           string    `json:"file"`           // or the volume's directory
	ServiceAccount string    `json:"serviceAccount,omitempty"`
	Audiences      []string  `json:"audiences,omitempty"`
	Issued         time.Time `json:"issued,omitzero"`
	RefreshBy      time.Time `json:"refreshBy,omitzero"` // 80 % of its life, or 24 hours, after issue; we ask for it earlier
	Expires        time.Time `json:"expires,omitzero"`   // warnafter, where the server extended the token
	Mode           string    `json:"mode,omitempty"`
	Owner          string    `json:"owner,omitempty"` // UID:GID
	State          string    `json:"state"`
	Error          string    `json:"error,omitempty"`

	wrong bool // the state is one that a check must tell
}

// look reads the root.
func (o *inspection) look(ctx context.Context, now time.Time) (sightings, error) {
	found := sightings{Time: now, Root: o.rootDir, Tokens: []sighting{}}
	o.unanswered = 0
	var seen []unverified
	wanted := map[string]bool{} // by UID
	err := projector.Survey(o.rootDir, func(v projector.FoundVolume) {
		for _, t := range v.Tokens {
			s := unverified{sighting: newSighting(v, t, now, o.grace)}
			if o.check != nil {
				s.token = t
			}
			seen = append(seen, s)
		}
		if s, ok := tokenless(v, now, o.grace); ok {
			seen = append(seen, unverified{sighting: s})
		}
	})
	if err != nil {
		return found, err
	}
	// Only its tokens name a pod: whatever else lies in its directory is of that pod, too.
	for _, s := range seen {
		wanted[s.PodUID] = wanted[s.PodUID] || o.wants(s.sighting)
	}
	for _, s := range seen {
		if wanted[s.PodUID] {
			o.verifyOne(ctx, &s.sighting, s.token)
			found.Tokens = append(found.Tokens, s.sighting)
		}
	}
	if ctx.Err() != nil {
		return found, errInterrupted
	}
	if o.only != "" && len(found.Tokens) == 0 && !o.watch {
		return found, o.noneOf(seen)
	}
	slices.SortStableFunc(found.Tokens, func(a, b sighting) int {
		return cmp.Or(a.Expires.Compare(b.Expires), cmp.Compare(a.File, b.File))
	})
	return found, nil
}

// unverified is a sighting with its token, if it is of one that is to be verified.
type unverified struct {
	sighting
	token projector.FoundToken
}

// noneOf is the error if nothing that was seen is of the pod that was asked for; what could not be read may be.
func (o *inspection) noneOf(seen []unverified) error {
	err := fmt.Errorf("no token of %q below %s; without that argument every pod's are shown", o.only, o.rootDir)
	unreadable := 0
	for _, s := range seen {
		if s.State == stateUnreadable {
			unreadable++
		}
	}
	if unreadable > 0 {
		err = fmt.Errorf("%w (volumes that cannot be read: %d)", err, unreadable)
	}
	return err
}

// wants reports whether the sighting is of what was asked for. What another pod's token says of its pod does not count.
func (o *inspection) wants(s sighting) bool {
	return o.only == "" || o.only == s.PodUID || s.Pod != "" && s.State != stateForeign && (o.only == s.Pod || o.only == s.Namespace+"/"+s.Pod)
}

// States of a token in its file.
const (
	stateFresh      = "fresh"
	stateStale      = "stale"
	stateExpired    = "expired"
	stateEarly      = "early"
	stateForeign    = "foreign"
	stateInvalid    = "invalid"
	stateUnverified = "unverified"
	statePending    = "pending"
	stateMissing    = "missing"
	stateUnreadable = "unreadable"
)

// maxAudiences is how many are shown. A projected token has one; in a file that a pod wrote there may be a million.
const maxAudiences = 8

// maxName is how many bytes of a name are shown: no name in Kubernetes is longer.
const maxName = 253

// clip is what is shown of a text that may be longer than any of its kind is.
func clip(text string) string {
	if len(text) <= maxName {
		return text
	}
	return strings.ToValidUTF8(text[:maxName], "") + "…"
}

// clockLeeway is how far ahead of this machine the API server's clock may be.
const clockLeeway = time.Minute

func newSighting(v projector.FoundVolume, t projector.FoundToken, now time.Time, grace time.Duration) sighting {
	c := t.Claims
	_, account, _ := strings.Cut(strings.TrimPrefix(c.Subject, "system:serviceaccount:"), ":")
	s := sighting{
		Namespace: clip(projector.Scrub(c.Namespace)), Pod: clip(projector.Scrub(c.PodName)), PodUID: projector.Scrub(string(v.Key.PodUID)),
		Volume: projector.Scrub(v.Key.Volume), Path: projector.Scrub(t.File.Path), File: projector.Scrub(filepath.Join(v.Dir, t.File.Path)),
		ServiceAccount: clip(projector.Scrub(account)),
		Issued:         c.Lifetime.Issued, RefreshBy: c.Lifetime.Limit(), Expires: c.Lifetime.Expires,
		Mode: fmt.Sprintf("%04o", t.File.Mode.Perm()), Owner: fmt.Sprintf("%d:%d", t.File.Owner.UID, t.File.Owner.GID),
	}
	for _, a := range c.Audience[:min(len(c.Audience), maxAudiences)] {
		s.Audiences = append(s.Audiences, projector.Scrub(a))
	}
	if len(c.Audience) > maxAudiences {
		s.Audiences = append(s.Audiences, "…")
	}
	_, early := validFrom(c, now)
	switch s.State = s.stateAt(now, grace); {
	case c.PodUID != v.Key.PodUID:
		s.State = stateForeign
	case s.State == stateFresh && early:
		s.State = stateEarly
	}
	s.wrong = s.State != stateFresh
	return s
}

// stateAt is one of fresh, stale and expired.
func (s sighting) stateAt(now time.Time, grace time.Duration) string {
	switch {
	case !now.Before(s.Expires):
		return stateExpired
	case now.After(s.RefreshBy.Add(grace)):
		return stateStale
	}
	return stateFresh
}

// validFrom is when a token begins to be valid, and whether this machine's clock is not there yet, by more than clocks differ.
func validFrom(c projector.Claims, now time.Time) (from time.Time, early bool) {
	if from = c.Lifetime.Issued; from.Before(c.NotBefore) {
		from = c.NotBefore
	}
	return from, from.After(now.Add(clockLeeway))
}

// tokenless is the sighting of a volume that cannot be read, or in which nothing was published, or no token is any more.
func tokenless(v projector.FoundVolume, now time.Time, grace time.Duration) (s sighting, ok bool) {
	s = sighting{PodUID: projector.Scrub(string(v.Key.PodUID)), Volume: projector.Scrub(v.Key.Volume), File: projector.Scrub(v.Dir)}
	switch {
	case errors.Is(v.Err, os.ErrPermission):
		s.State, s.Error, s.wrong = stateUnreadable, "permission denied; run as root", true
	case v.Err != nil:
		s.State, s.Error, s.wrong = stateUnreadable, projector.Scrub(v.Err.Error()), true
	case v.Version == "":
		s.State, s.wrong = statePending, now.Sub(v.Changed) > grace
	case v.Ours && len(v.Tokens) == 0:
		s.State, s.wrong = stateMissing, true
	default:
		return s, false
	}
	return s, true
}
