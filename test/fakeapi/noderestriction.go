package fakeapi

import (
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// admitToken is NodeRestriction (kubernetes plugin/pkg/admission/noderestriction) for TokenRequests.
func (c *call) admitToken(spec *authenticationv1.TokenRequestSpec) error {
	node, isNode := nodeOf(c.user)
	if !isNode {
		return nil
	}
	pod, err := c.boundPod(spec.BoundObjectRef)
	if err != nil {
		return err
	}
	audience := append(slices.Clone(spec.Audiences), "")[0]
	switch {
	case spec.BoundObjectRef.UID != pod.UID:
		return c.notAdmitted("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", spec.BoundObjectRef.UID)
	case pod.Spec.NodeName != node:
		return c.notAdmitted("node requested token bound to a pod scheduled on a different node")
	case len(spec.Audiences) > 1:
		return c.notAdmitted("node may only request 0 or 1 audiences")
	case !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return asksFor(v, audience) }):
		return c.notAdmitted("%s is not authorized to request tokens for audience %q", c.user.Username, audience)
	}
	return nil
}

func (c *call) notAdmitted(format string, args ...any) error {
	return apierrors.NewForbidden(schema.GroupResource{Group: c.Group, Resource: c.Resource}, c.Name, fmt.Errorf(format, args...))
}

// boundPod is the pod that a node wants a token for.
func (c *call) boundPod(ref *authenticationv1.BoundObjectReference) (*corev1.Pod, error) {
	switch {
	case ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "":
		return nil, c.notAdmitted("node requested token not bound to a pod")
	case ref.UID == "":
		return nil, c.notAdmitted("node requested token with a pod binding without a uid")
	}
	v, err := locked(c.s, func() (*version, error) { return c.s.store.get("pods", named(c.Namespace, ref.Name)) })
	if err != nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pod"}, ref.Name) // in the words of a lister
	}
	return v.obj.(*corev1.Pod), nil
}

// asksFor: a token source of the volume is for that audience.
func asksFor(v corev1.Volume, audience string) bool {
	return v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
		return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
	})
}
