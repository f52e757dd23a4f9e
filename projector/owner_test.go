package projector

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/token-projector/token-projector/atomicwriter"
)

// security makes the security contexts of a pod.
func security(podUser, group *int64, containers ...*int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: podUser, FSGroup: group}
		for _, user := range containers {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{SecurityContext: &corev1.SecurityContext{RunAsUser: user}})
		}
	}
}

// name is a user or group in a table.
func named(id *int64) string {
	if id == nil {
		return "-"
	}
	return fmt.Sprint(*id)
}

// TestOwnersOfTokens: the table of the kubelet's rules (pkg/volume/projected/projected.go with the fsGroup pass of
// pkg/volume/volume_linux.go), user fields included: a source's user goes before defaultUser, and that before the
// containers'. defaultMode is heeded only where nobody can be named who is to read the token.
func TestOwnersOfTokens(t *testing.T) {
	id := func(n int64) *int64 { return &n }
	for _, tt := range []struct {
		common, group, defaultUser, user *int64
		mode                             fs.FileMode
		owner                            string
	}{
		{nil, nil, nil, nil, 0o604, "-:-"},
		{id(7), nil, nil, nil, 0o600, "7:-"},
		{nil, id(9), nil, nil, 0o640, "-:9"},
		{id(7), id(9), nil, nil, 0o640, "7:9"},
		{id(0), nil, nil, nil, 0o600, "0:-"},
		{nil, id(0), nil, nil, 0o640, "-:0"},
		{id(7), nil, id(8), nil, 0o600, "8:-"},
		{id(7), id(9), id(8), id(6), 0o640, "6:9"},
		{nil, nil, nil, id(6), 0o600, "6:-"},
		{nil, nil, id(8), nil, 0o600, "8:-"},
	} {
		token := tokenSource("", 600, "token")
		token.ServiceAccountToken.User = tt.user
		bundle := corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{
			Name: new("b"), Path: "bundle", User: tt.user,
		}}
		v := desiredOne(t, func(p *corev1.Pod) {
			security(tt.common, tt.group, nil)(p)
			p.Spec.SecurityContext.FSGroupChangePolicy = new(corev1.FSGroupChangeOnRootMismatch) // heeded for other volumes only
			p.Spec.Volumes[0].Projected.DefaultMode = new(int32(0o604))
			p.Spec.Volumes[0].Projected.DefaultUser = tt.defaultUser
		}, token, bundle)
		if v.Err != nil {
			t.Fatal(v.Err)
		}
		got, of := v.Sources[0].Token, v.Sources[1].Object.Items[0]
		if owner := named(got.User) + ":" + named(v.Group); got.Mode != tt.mode || owner != tt.owner {
			t.Errorf("%+v: mode %v, owner %s", tt, got.Mode, owner)
		}
		if of.Mode != got.Mode || named(of.User) != named(got.User) {
			t.Errorf("%+v: a trust bundle is not owned as a token: %v %s", tt, of.Mode, named(of.User))
		}
	}
}

// TestOwnersOfOtherFiles: only the user fields give them an owner; fsGroup opens them to the group.
func TestOwnersOfOtherFiles(t *testing.T) {
	id := func(n int64) *int64 { return &n }
	item := configMapSource("c", "k")
	item.ConfigMap.Items[0].Mode, item.ConfigMap.Items[0].User = new(int32(0o400)), id(6)
	whole := corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}
	file := field("name", "metadata.name")
	file.User = id(5)
	for _, tt := range []struct {
		group, defaultUser *int64
		want               string
	}{
		{nil, nil, "6 -r-------- - -rw-r--r-- 5 -rw-r--r-- - -rw-r--r--"},
		{id(9), nil, "6 -r--r----- - -rw-r--r-- 5 -rw-r--r-- - -rw-r--r--"},
		{id(9), id(8), "6 -r--r----- 8 -rw-r--r-- 5 -rw-r--r-- 8 -rw-r--r--"},
	} {
		v := desiredOne(t, func(p *corev1.Pod) {
			security(id(7), tt.group, nil)(p)
			p.Spec.Volumes[0].Projected.DefaultUser = tt.defaultUser
		}, tokenSource("", 600, "token"), item, whole, downwardSource(file, field("uid", "metadata.uid")))
		if v.Err != nil {
			t.Fatal(v.Err)
		}
		i, o, l := v.Sources[1].Object.Items[0], v.Sources[2].Object, v.Sources[3].Literal
		got := fmt.Sprint(named(i.User), " ", i.Mode, " ", named(o.User), " ", o.Mode, " ",
			named(l[0].User), " ", l[0].Mode, " ", named(l[1].User), " ", l[1].Mode)
		if got != tt.want {
			t.Errorf("group %s, defaultUser %s: %s, want %s", named(tt.group), named(tt.defaultUser), got, tt.want)
		}
	}
}

// TestCommonUser: the one user of init, regular and ephemeral containers; 0 is one.
func TestCommonUser(t *testing.T) {
	pod := func(user *int64) *corev1.PodSecurityContext { return &corev1.PodSecurityContext{RunAsUser: user} }
	user := func(id int64) *corev1.SecurityContext { return &corev1.SecurityContext{RunAsUser: &id} }
	debug := func(sc *corev1.SecurityContext) []corev1.EphemeralContainer {
		return []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{SecurityContext: sc}}}
	}
	two := func(a, b *corev1.SecurityContext) []corev1.Container {
		return []corev1.Container{{SecurityContext: a}, {SecurityContext: b}}
	}
	for name, tt := range map[string]struct {
		spec corev1.PodSpec
		want string
	}{
		"nothing":                  {corev1.PodSpec{Containers: two(nil, nil)}, "-"},
		"empty contexts":           {corev1.PodSpec{SecurityContext: pod(nil), Containers: two(&corev1.SecurityContext{}, nil)}, "-"},
		"pod's":                    {corev1.PodSpec{SecurityContext: pod(new(int64(7))), Containers: two(nil, nil)}, "7"},
		"root counts":              {corev1.PodSpec{SecurityContext: pod(new(int64(0))), Containers: two(nil, nil)}, "0"},
		"same in each":             {corev1.PodSpec{Containers: two(user(7), user(7))}, "7"},
		"two users":                {corev1.PodSpec{Containers: two(user(7), user(8))}, "-"},
		"root and another":         {corev1.PodSpec{Containers: two(user(0), user(8))}, "-"},
		"one has none":             {corev1.PodSpec{Containers: two(user(7), nil)}, "-"},
		"first has none":           {corev1.PodSpec{Containers: two(nil, user(7))}, "-"},
		"pod's, one overrides":     {corev1.PodSpec{SecurityContext: pod(new(int64(7))), Containers: two(user(8), nil)}, "-"},
		"pod's, override alike":    {corev1.PodSpec{SecurityContext: pod(new(int64(7))), Containers: two(user(7), nil)}, "7"},
		"init differs":             {corev1.PodSpec{InitContainers: two(user(8), user(7)), Containers: two(user(7), user(7))}, "-"},
		"init alike":               {corev1.PodSpec{InitContainers: two(user(7), user(7)), Containers: two(user(7), user(7))}, "7"},
		"ephemeral differs":        {corev1.PodSpec{Containers: two(user(7), user(7)), EphemeralContainers: debug(user(8))}, "-"},
		"ephemeral without a user": {corev1.PodSpec{Containers: two(user(7), user(7)), EphemeralContainers: debug(nil)}, "-"},
		"ephemeral alike":          {corev1.PodSpec{Containers: two(user(7), user(7)), EphemeralContainers: debug(user(7))}, "7"},
	} {
		if got := named(commonUser(&tt.spec)); got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
}

// TestImpossibleIDs: what is no user or group is an error, not -1 for chown to misread.
func TestImpossibleIDs(t *testing.T) {
	bad := new(int64(-1))
	big := new(int64(1 << 32))
	own := tokenSource("", 600, "token")
	own.ServiceAccountToken.User = bad
	item := configMapSource("c", "k")
	item.ConfigMap.Items[0].User = big
	file := field("name", "metadata.name")
	file.User = bad
	for name, v := range map[string]Volume{
		"fsGroup":   desiredOne(t, security(nil, bad, nil), tokenSource("", 600, "token")),
		"runAsUser": desiredOne(t, security(big, nil, nil), tokenSource("", 600, "token")),
		"token":     desiredOne(t, nil, own),
		"item":      desiredOne(t, nil, tokenSource("", 600, "token"), item),
		"field":     desiredOne(t, nil, tokenSource("", 600, "token"), downwardSource(file)),
		"defaultUser": desiredOne(t, func(p *corev1.Pod) { p.Spec.Volumes[0].Projected.DefaultUser = bad },
			tokenSource("", 600, "token")),
	} {
		if v.Err == nil || v.Err.Reason != ReasonInvalid {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// TestAllowed: the next best owner of a file, never somebody else's.
func TestAllowed(t *testing.T) {
	self := atomicwriter.Owner{UID: 1, GID: 2}
	both, group := atomicwriter.Owner{UID: 7, GID: 9}, atomicwriter.Owner{UID: 1, GID: 9}
	for _, tt := range []struct {
		refused []atomicwriter.Owner
		want    atomicwriter.Owner
	}{
		{nil, both},
		{[]atomicwriter.Owner{group}, both},
		{[]atomicwriter.Owner{both}, group},
		{[]atomicwriter.Owner{group, both}, self},
		{[]atomicwriter.Owner{group, both, self}, self},
	} {
		if got := allowed(both, self, tt.refused); got != tt.want {
			t.Errorf("refused %v: %v, want %v", tt.refused, got, tt.want)
		}
	}
}

// TestUngrouped: a group that is not the wanted one has only what everybody has.
func TestUngrouped(t *testing.T) {
	for _, tt := range []struct{ mode, want fs.FileMode }{{0o640, 0o600}, {0o644, 0o644}, {0o440, 0o400}, {0o775, 0o755}, {0o070, 0}} {
		if got := ungrouped(tt.mode, 9, atomicwriter.Owner{GID: 1}); got != tt.want {
			t.Errorf("%v becomes %v, want %v", tt.mode, got, tt.want)
		}
		if got := ungrouped(tt.mode, 9, atomicwriter.Owner{GID: 9}); got != tt.mode {
			t.Errorf("%v of the wanted group becomes %v", tt.mode, got)
		}
	}
}

// TestUserChangesWhileThePodRuns: an ephemeral container with another user changes whose the token is, at once and
// without a new token. The kubelet waits for the next rotation.
func TestUserChangesWhileThePodRuns(t *testing.T) {
	r := newRig(t)
	pod := lonePod(1, 600)
	security(new(int64(7)), new(int64(9)), nil)(pod)
	r.apply(pod)
	r.drain()
	token := r.files[extra(1)]["extra-token"]
	if want := (atomicwriter.Owner{UID: 7, GID: 9}); token.owner != want || token.mode != 0o640 {
		t.Fatalf("%v %v", token.owner, token.mode)
	}
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{}}
	pod.Spec.EphemeralContainers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(8))}
	r.apply(pod)
	r.drain()
	changed := r.files[extra(1)]["extra-token"]
	if want := (atomicwriter.Owner{GID: 9}); changed.owner != want || changed.mode != 0o640 || changed.data != token.data {
		t.Errorf("%v %v, the same token %v", changed.owner, changed.mode, changed.data == token.data)
	}
	if len(r.requests) != 1 || r.made != 2 {
		t.Errorf("%d requests, %d versions", len(r.requests), r.made)
	}
	r.run(9 * 60e9) // and the renewed token has it, too
	if renewed := r.files[extra(1)]["extra-token"]; renewed.data == token.data || renewed.owner != changed.owner {
		t.Errorf("after the refresh: %v", renewed.owner)
	}
}

// TestRefusedOwner: owners that may not be given are remembered, so that no later job differs from what is on disk,
// and said once for all volumes.
func TestRefusedOwner(t *testing.T) {
	r := newRig(t)
	for n := range 2 {
		pod := lonePod(n, 600)
		security(new(int64(7)), new(int64(9)), nil)(pod)
		r.apply(pod)
	}
	r.s.replace(r.wishes(), r.now)
	for range 2 {
		j := r.until(isPublish)
		wanted, dirs := atomicwriter.Owner{UID: 7, GID: 9}, atomicwriter.Owner{GID: 9}
		for _, o := range []atomicwriter.Owner{dirs, wanted} {
			if !j.publish.refusedBy(&atomicwriter.OwnerError{Owner: o, Err: fs.ErrPermission}, r.s.self) {
				t.Fatalf("%v is none of the job's", o)
			}
		}
		if j.publish.refusedBy(&atomicwriter.OwnerError{Owner: wanted}, r.s.self) || j.publish.refusedBy(fs.ErrPermission, r.s.self) {
			t.Error("refused for ever")
		}
		if j.publish.group != nil {
			t.Error("a group that was refused is asked for again")
		}
		r.finish(j)
	}
	r.drain()
	r.run(9 * 60e9)
	if r.made != 4 || len(r.requests) != 4 { // first, and one refresh each
		t.Errorf("%d versions, %d requests: repaired for ever?", r.made, len(r.requests))
	}
	token := r.files[extra(1)]["extra-token"]
	if token.owner != r.s.self || token.mode != 0o600 { // the daemon's group is not the pod's
		t.Errorf("%v %v", token.owner, token.mode)
	}
	if n := r.count("may not give files"); n != 1 {
		t.Errorf("said %d times", n)
	}
	manifest, err := os.ReadFile("../deploy/base/daemonset.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(manifest), " add: [")
	list, _, ok := strings.Cut(list, "]")
	i := strings.LastIndex(list, ", ")
	if !ok || i < 0 {
		t.Fatalf("the DaemonSet adds capabilities %q", list)
	}
	if advice := "capabilities " + list[:i] + " and " + list[i+2:] + ","; !r.says(advice) {
		t.Errorf("the advice is not %q: %s", advice, r.logged.String())
	}
}
