package main

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
)

var widgetKind = schema.GroupVersionKind{Group: "clients.example.com", Version: "v1", Kind: "Widget"}

const finalizer = "clients.example.com/hold"

func newWidget(name string, replicas int64) *unstructured.Unstructured {
	widget := &unstructured.Unstructured{}
	widget.SetGroupVersionKind(widgetKind)
	widget.SetName(name)
	widget.SetNamespace("default")
	_ = unstructured.SetNestedField(widget.Object, replicas, "spec", "replicas")
	return widget
}

// A Deployment for each Widget, owned by it; how many pods are ready goes into the Widget's status.
type reconciler struct{ client.Client }

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	widget := &unstructured.Unstructured{}
	widget.SetGroupVersionKind(widgetKind)
	if err := r.Get(ctx, request.NamespacedName, widget); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !widget.GetDeletionTimestamp().IsZero() {
		if controllerutil.RemoveFinalizer(widget, finalizer) {
			return ctrl.Result{}, r.Update(ctx, widget)
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(widget, finalizer) {
		if err := r.Update(ctx, widget); err != nil {
			return ctrl.Result{}, err
		}
	}
	replicas, _, _ := unstructured.NestedInt64(widget.Object, "spec", "replicas")
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: widget.GetName(), Namespace: widget.GetNamespace()}}
	_, err := controllerutil.CreateOrUpdate(ctx, r.Client, deployment, func() error {
		count := int32(replicas)
		labels := map[string]string{"widget": widget.GetName()}
		deployment.Spec.Replicas = &count
		deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		deployment.Spec.Template.Labels = labels
		if len(deployment.Spec.Template.Spec.Containers) == 0 {
			deployment.Spec.Template.Spec.Containers = []corev1.Container{{
				Name: "main", Image: "example.com/widget:1", Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
			}}
		}
		return controllerutil.SetControllerReference(widget, deployment, r.Scheme())
	})
	if err != nil {
		return ctrl.Result{}, err
	}
	ready := int64(deployment.Status.ReadyReplicas)
	if known, found, _ := unstructured.NestedInt64(widget.Object, "status", "ready"); found && known == ready {
		return ctrl.Result{}, nil
	}
	patch := client.MergeFrom(widget.DeepCopy())
	_ = unstructured.SetNestedField(widget.Object, ready, "status", "ready")
	return ctrl.Result{}, r.Status().Patch(ctx, widget, patch)
}
