package cases

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// createTokenSecret makes a Secret for the long-lived token of an account, with more data.
func (w *World) createTokenSecret(account string, data map[string][]byte) *corev1.Secret {
	secret, err := w.Client.CoreV1().Secrets(w.NS).Create(w.Ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: account}},
		Type:       corev1.SecretTypeServiceAccountToken, Data: data,
	}, metav1.CreateOptions{})
	w.must(err)
	return secret
}

func (w *World) tokenSecret() (*corev1.Secret, error) {
	return w.Client.CoreV1().Secrets(w.NS).Get(w.Ctx, "token", metav1.GetOptions{})
}

func (w *World) deleteTokenSecret() {
	w.must(w.Client.CoreV1().Secrets(w.NS).Delete(w.Ctx, "token", metav1.DeleteOptions{}))
}

func (w *World) secretGone() error {
	_, err := w.tokenSecret()
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("the Secret is still there: %w", err)
	}
	return nil
}

// longLived makes an account "old" with a token Secret, and returns both when the Secret is filled.
func (w *World) longLived(data map[string][]byte) (account *corev1.ServiceAccount, secret *corev1.Secret) {
	account = w.createAccount("old")
	w.createTokenSecret("old", data)
	w.eventually(func() (err error) {
		if secret, err = w.tokenSecret(); err == nil && len(secret.Data["token"])*len(secret.Data["namespace"]) == 0 {
			err = errors.New("the Secret is not filled")
		}
		return err
	})
	return account, secret
}

// refused says whether the API answers a token with 401. What else it says depends on what the user may do.
func (w *World) refused(token []byte) bool {
	client, err := kubernetes.NewForConfig(w.Bearer(string(token)))
	w.must(err)
	_, err = client.CoreV1().Secrets(w.NS).List(w.Ctx, metav1.ListOptions{})
	if err != nil && !apierrors.IsUnauthorized(err) && !apierrors.IsForbidden(err) {
		w.Fatalf("%w", err)
	}
	return apierrors.IsUnauthorized(err)
}

// wantRefused waits until the token is refused, which it was not before: what judges it hears of a new Secret a little later.
func (w *World) wantRefused(token []byte, after func()) {
	w.eventually(func() error {
		if w.refused(token) {
			return errors.New("refused too early")
		}
		return nil
	})
	after()
	w.eventually(func() error {
		if !w.refused(token) {
			return errors.New("the token is still accepted")
		}
		return nil
	})
}

// reviewToken asks what a token is good for.
func (w *World) reviewToken(token []byte, audiences ...string) authenticationv1.TokenReviewStatus {
	review, err := w.Client.AuthenticationV1().TokenReviews().Create(w.Ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: string(token), Audiences: audiences},
	}, metav1.CreateOptions{})
	w.must(err)
	return review.Status
}

// decodePart is one of the JSON parts of a JWT.
func (w *World) decodePart(token []byte, index int) map[string]any {
	parts := strings.Split(string(token), ".")
	if len(parts) != 3 {
		w.Fatalf("the token has %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[index])
	w.must(err)
	out := map[string]any{}
	w.must(json.Unmarshal(raw, &out))
	return out
}

func longLivedTokens() []Case {
	return slices.Concat(longLivedSecrets(), longLivedCredentials(), longLivedReviews())
}

// longLivedCredentials are about such a token as it is presented.
func longLivedCredentials() []Case {
	return []Case{
		{Group: accountsGroup, Name: "a long-lived token: its claims, no expiry and no audience", Run: func(w *World) {
			account, secret := w.longLived(nil)
			w.wantEqual("claims", w.decodePart(secret.Data["token"], 1), map[string]any{
				"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:" + w.NS + ":old",
				"kubernetes.io/serviceaccount/namespace":            w.NS,
				"kubernetes.io/serviceaccount/secret.name":          "token",
				"kubernetes.io/serviceaccount/service-account.name": "old",
				"kubernetes.io/serviceaccount/service-account.uid":  string(account.UID),
			})
		}},
		{Group: accountsGroup, Name: "a long-lived token is accepted until its Secret is deleted", Run: func(w *World) {
			_, secret := w.longLived(nil)
			w.wantRefused(secret.Data["token"], w.deleteTokenSecret)
		}},
		{Group: accountsGroup, Name: "a long-lived token is refused as soon as its Secret is terminating", Run: func(w *World) {
			_, secret := w.longLived(nil)
			secret.Finalizers = []string{"example.com/hold"}
			secret, err := w.Client.CoreV1().Secrets(w.NS).Update(w.Ctx, secret, metav1.UpdateOptions{})
			w.must(err)
			w.wantRefused(secret.Data["token"], w.deleteTokenSecret)
			secret, err = w.tokenSecret()
			w.must(err)
			secret.Finalizers = nil
			_, err = w.Client.CoreV1().Secrets(w.NS).Update(w.Ctx, secret, metav1.UpdateOptions{})
			w.must(err)
		}},
		{Group: accountsGroup, Name: "a long-lived token is refused when its Secret holds another", Run: func(w *World) {
			_, secret := w.longLived(nil)
			w.wantRefused(secret.Data["token"], func() {
				_, err := w.Client.CoreV1().Secrets(w.NS).Patch(w.Ctx, "token", types.MergePatchType, []byte(`{"data":{"token":"b3RoZXI="}}`), metav1.PatchOptions{})
				w.must(err)
			})
		}},
		{Group: accountsGroup, Name: "a long-lived token is refused when its account is deleted", Run: func(w *World) {
			_, secret := w.longLived(nil)
			w.wantRefused(secret.Data["token"], func() { w.deleteAccount("old") })
		}},
		{Group: accountsGroup, Name: "a string that somebody wrote into a token Secret is no token", Run: func(w *World) {
			_, secret := w.longLived(map[string][]byte{"token": []byte("my own")})
			w.wantEqual("token", string(secret.Data["token"]), "my own")
			w.wantEqual("refused", w.refused(secret.Data["token"]), true)
		}},
	}
}

// longLivedReviews are about what is said of it.
func longLivedReviews() []Case {
	return []Case{
		{Group: accountsGroup, Name: "TokenReview of a long-lived token: the account, its groups, no extra", Run: func(w *World) {
			account, secret := w.longLived(nil)
			w.wantEqual("status", w.reviewToken(secret.Data["token"]), authenticationv1.TokenReviewStatus{
				Authenticated: true, Audiences: Usual.Issuers,
				User: authenticationv1.UserInfo{Username: "system:serviceaccount:" + w.NS + ":old", UID: string(account.UID),
					Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + w.NS, "system:authenticated"}},
			})
		}},
		{Group: accountsGroup, Name: "TokenReview of a long-lived token for another audience: not authenticated", Run: func(w *World) {
			_, secret := w.longLived(nil)
			w.wantEqual("status", w.reviewToken(secret.Data["token"], "vault"), authenticationv1.TokenReviewStatus{
				Error: `[invalid bearer token, token audiences ["` + ClusterIssuer + `"] is invalid for the target audiences ["vault"]]`})
		}},
		{Group: accountsGroup, Name: "TokenReview of a long-lived token whose Secret is gone: not authenticated", Run: func(w *World) {
			_, secret := w.longLived(nil)
			w.wantRefused(secret.Data["token"], w.deleteTokenSecret)
			w.wantEqual("status", w.reviewToken(secret.Data["token"]), authenticationv1.TokenReviewStatus{Error: "[invalid bearer token, Token has been invalidated]"})
		}},
		{Group: accountsGroup, Name: "the use of a long-lived token is noted on its Secret", Run: func(w *World) {
			_, secret := w.longLived(nil)
			w.wantEqual("refused", w.refused(secret.Data["token"]), false)
			w.eventually(func() error {
				secret, err := w.tokenSecret()
				if today := w.Now().UTC().Format("2006-01-02"); err == nil && secret.Labels["kubernetes.io/legacy-token-last-used"] != today {
					err = fmt.Errorf("labels %v", secret.Labels)
				}
				return err
			})
		}},
	}
}

func longLivedSecrets() []Case {
	return []Case{
		{Group: accountsGroup, Name: "a token Secret is filled with token, ca.crt and namespace, and the account's UID is noted on it", Run: func(w *World) {
			account, secret := w.longLived(map[string][]byte{"more": []byte("kept"), "ca.crt": []byte("wrong")})
			w.wantEqual("annotations", secret.Annotations, map[string]string{corev1.ServiceAccountNameKey: "old", corev1.ServiceAccountUIDKey: string(account.UID)})
			delete(secret.Data, "token")
			w.wantEqual("data", secret.Data, map[string][]byte{"ca.crt": w.Admin.CAData, "namespace": []byte(w.NS), "more": []byte("kept")})
			account, err := w.readAccount("old")
			w.must(err)
			w.wantEqual("secrets of the account", len(account.Secrets), 0)
		}},
		{Group: accountsGroup, Name: "a token Secret whose token is removed gets another", Run: func(w *World) {
			_, secret := w.longLived(nil)
			delete(secret.Data, "token")
			_, err := w.Client.CoreV1().Secrets(w.NS).Update(w.Ctx, secret, metav1.UpdateOptions{})
			w.must(err)
			w.eventually(func() error {
				secret, err := w.tokenSecret()
				if err == nil && len(secret.Data["token"]) == 0 {
					err = errors.New("there is none")
				}
				return err
			})
		}},
		{Group: accountsGroup, Name: "a token Secret that names no account: 422", Run: func(w *World) {
			_, err := w.Client.CoreV1().Secrets(w.NS).Create(w.Ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "token"}, Type: corev1.SecretTypeServiceAccountToken}, metav1.CreateOptions{})
			w.wantRefusal(err, answer{422, metav1.StatusReasonInvalid, `Secret "token" is invalid: metadata.annotations[kubernetes.io/service-account.name]: Required value`})
		}},
		{Group: accountsGroup, Name: "a token Secret of an account that does not exist is removed", Run: func(w *World) {
			w.createTokenSecret("missing", nil)
			w.eventually(w.secretGone)
		}},
		{Group: accountsGroup, Name: "a token Secret goes with its account", Run: func(w *World) {
			w.longLived(nil)
			w.deleteAccount("old")
			w.eventually(w.secretGone)
		}},
		{Group: accountsGroup, Name: "a token Secret for another UID of its account is removed", Run: func(w *World) {
			w.createAccount("old")
			_, err := w.Client.CoreV1().Secrets(w.NS).Create(w.Ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "old", corev1.ServiceAccountUIDKey: "other"}},
				Type:       corev1.SecretTypeServiceAccountToken,
			}, metav1.CreateOptions{})
			w.must(err)
			w.eventually(w.secretGone)
		}},
	}
}
