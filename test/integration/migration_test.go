package integration

import (
	"context"
	"crypto"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/token-projector/token-projector/test/fakeapi"
)

// TestMigration gives the server another issuer and another key as an operator does: the new ones are accepted first, then
// used, and the old ones go when no token is theirs any more. What is on disk is good all the while.
func TestMigration(t *testing.T) {
	t.Parallel()
	oldKey, newKey, lastKey := signingKey(t), signingKey(t), signingKey(t)
	const oldIssuer, newIssuer = "https://old.example", "https://new.example"
	w := newWorld(t, fakeapi.Options{
		MaxTokenExpiration: 5 * time.Second, SigningKeys: []crypto.Signer{oldKey}, Issuers: []string{oldIssuer},
	})
	d := w.start()
	pod := w.pod("demo", "web", tokenVolume("vault", "vault", 600))
	w.waitPublished(pod)
	c := startConsumer(t, w.api, map[string]string{w.path(pod, apiVolume(pod), "token"): "", w.path(pod, "vault", "token"): "vault"})
	read := func(tokens int, issuer string) {
		t.Helper()
		kid := w.api.Keys().Keys[0].KeyID
		eventually(t, fmt.Sprintf("%d tokens of each file, of %s and the first key", tokens, issuer), func() bool {
			return c.least(identity{issuer, kid}) >= tokens
		})
	}
	use := func(keys []crypto.Signer, issuers ...string) {
		t.Helper()
		c.forget()
		w.api.SetIssuers(issuers[0], issuers[1:]...)
		if err := w.api.SetSigningKeys(keys[0], keys[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	read(1, oldIssuer)
	use([]crypto.Signer{oldKey, newKey}, oldIssuer, newIssuer)
	read(2, oldIssuer)
	use([]crypto.Signer{newKey, oldKey}, newIssuer, oldIssuer)
	read(2, newIssuer)
	use([]crypto.Signer{newKey}, newIssuer)
	read(2, newIssuer)
	if refused := c.refusals(); len(refused) > 0 {
		t.Errorf("%d reads of a token that is refused, first: %s", len(refused), refused[0])
	}
	// A key that goes at once takes the tokens on disk with it, and the consumer notices.
	use([]crypto.Signer{lastKey}, newIssuer)
	eventually(t, "a refusal", func() bool { return len(c.refusals()) > 0 })
	d.Terminate()
}

func signingKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := fakeapi.NewSigningKey(jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// consumer reads token files again and again, and each time has the server judge what it read.
type consumer struct {
	client kubernetes.Interface
	mu     sync.Mutex
	seen   map[string]map[string]identity // file → token → who issued it
	faults []string
}

type identity struct{ issuer, kid string }

// startConsumer reads the files, each of the audience with it, until the test ends.
func startConsumer(t *testing.T, api *fakeapi.Server, files map[string]string) *consumer {
	t.Helper()
	client, err := api.Clientset()
	if err != nil {
		t.Fatal(err)
	}
	c := &consumer{client: client, seen: map[string]map[string]identity{}}
	for file := range files {
		c.seen[file] = map[string]identity{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	t.Cleanup(func() { cancel(); reading.Wait() })
	for file, audience := range files {
		reading.Go(func() {
			for ctx.Err() == nil {
				c.read(ctx, file, audience)
				select {
				case <-ctx.Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}
	return c
}

func (c *consumer) read(ctx context.Context, file, audience string) {
	token, err := os.ReadFile(file)
	if err != nil {
		c.fault(err.Error())
		return
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: string(token)}}
	if audience != "" {
		review.Spec.Audiences = []string{audience}
	}
	review, err = c.client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.fault(err.Error())
	case !review.Status.Authenticated:
		c.fault(review.Status.Error)
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.seen[file][string(token)] = issuedBy(string(token))
	}
}

// issuedBy is what the token says.
func issuedBy(token string) identity {
	var claims jwt.Claims
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || parsed.UnsafeClaimsWithoutVerification(&claims) != nil {
		return identity{}
	}
	return identity{claims.Issuer, parsed.Headers[0].KeyID}
}

func (c *consumer) fault(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, what)
}

// least is how many tokens of that identity were read since forget, of the file that had the fewest.
func (c *consumer) least(by identity) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	least := -1
	for _, tokens := range c.seen {
		n := 0
		for _, other := range tokens {
			if other == by {
				n++
			}
		}
		if least < 0 || n < least {
			least = n
		}
	}
	return least
}

// forget forgets the tokens, not the refusals.
func (c *consumer) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, tokens := range c.seen {
		clear(tokens)
	}
}

func (c *consumer) refusals() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.faults)
}
