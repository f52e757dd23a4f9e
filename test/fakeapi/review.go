package fakeapi

import (
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// serveReview answers whom a credential stands for. Nothing is stored.
func (c *call) serveReview(refused error) error {
	review := map[string]func() error{"tokenreviews": c.reviewToken, "selfsubjectreviews": c.reviewSelf}[c.Resource]
	switch {
	case review == nil || c.Namespace != "" || c.Name != "":
		return errNoPath
	case refused != nil:
		return refused
	case c.Verb != "create":
		return errNoMethod
	}
	return review()
}

func (c *call) reviewToken() error {
	r := &authenticationv1.TokenReview{}
	return c.complete(r, authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), func() error {
		if r.Spec.Token == "" {
			return apierrors.NewBadRequest("token is required for TokenReview in authentication")
		}
		audiences := r.Spec.Audiences
		if len(audiences) == 0 {
			audiences = c.s.apiAudiences()
		}
		user, matched, err := c.s.authenticateToken(r.Spec.Token, audiences)
		r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: user, Audiences: matched}
		if err != nil { // said twice, it is told once
			r.Status = authenticationv1.TokenReviewStatus{Error: utilerrors.NewAggregate([]error{errNoToken, err}).Error()}
		}
		return nil
	})
}

func (c *call) reviewSelf() error {
	r := &authenticationv1.SelfSubjectReview{}
	return c.complete(r, authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"), func() error {
		r.Status.UserInfo = c.user
		return nil
	})
}

// complete answers 201 with the body, which is of a kind, once fill has completed it.
func (c *call) complete(obj runtime.Object, kind schema.GroupVersionKind, fill func() error) error {
	if err := c.decode(kind, obj); err != nil {
		return err
	}
	if err := fill(); err != nil {
		return err
	}
	obj.GetObjectKind().SetGroupVersionKind(kind)
	c.reply(http.StatusCreated, obj)
	return nil
}
