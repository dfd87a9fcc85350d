// An unmodified controller-runtime manager and client-go against a cluster, step by step: each prints `ok STEP`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	coreac "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println("ok all")
}

func done(step string) { fmt.Println("ok", step) }

func until(ctx context.Context, what string, holds func() bool) error {
	for !holds() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
	done(what)
	return nil
}

func run() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	ctrl.SetLogger(logr.Discard())
	config := ctrl.GetConfigOrDie()
	folder, err := os.MkdirTemp("", "clients-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	authority, err := makeCertificate(folder)
	if err != nil {
		return err
	}
	port, err := freePort()
	if err != nil {
		return err
	}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		LeaderElection: true, LeaderElectionID: "clients.example.com", LeaderElectionNamespace: "default",
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       metricsserver.Options{BindAddress: "0"},
		WebhookServer:                 newWebhooks(folder, port),
	})
	if err != nil {
		return err
	}
	byNode := func(pod client.Object) []string { return []string{pod.(*corev1.Pod).Spec.NodeName} }
	if err := manager.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, "spec.nodeName", byNode); err != nil {
		return err
	}
	kind := &unstructured.Unstructured{}
	kind.SetGroupVersionKind(widgetKind)
	err = ctrl.NewControllerManagedBy(manager).For(kind).Owns(&appsv1.Deployment{}).
		Watches(&discoveryv1.EndpointSlice{}, &handler.EnqueueRequestForObject{}, builder.OnlyMetadata).
		Complete(&reconciler{manager.GetClient()})
	if err != nil {
		return err
	}
	stop, end := context.WithCancel(ctx)
	defer end()
	stopped := make(chan error, 1)
	go func() { stopped <- manager.Start(stop) }()
	if !manager.GetCache().WaitForCacheSync(ctx) {
		return errors.New("the caches do not sync")
	}
	done("caches in sync")
	select {
	case <-manager.Elected():
	case err := <-stopped:
		return err
	case <-ctx.Done():
		return errors.New("nobody was elected")
	}
	done("elected by a Lease")
	if err := steps(ctx, manager, port, authority); err != nil {
		return err
	}
	end()
	if err := <-stopped; err != nil {
		return err
	}
	done("the Lease was given back")
	return nil
}

func steps(ctx context.Context, manager ctrl.Manager, port int, authority []byte) error {
	c, direct := manager.GetClient(), manager.GetAPIReader()
	started := manager.GetWebhookServer().StartedChecker()
	if err := until(ctx, "webhooks listen", func() bool { return started(nil) == nil }); err != nil {
		return err
	}
	if err := registerWebhooks(ctx, c, port, authority); err != nil {
		return err
	}
	widget := newWidget("one", 2)
	if err := c.Create(ctx, widget); err != nil {
		return err
	}
	if widget.GetLabels()["labelled-by"] != "webhook" {
		return fmt.Errorf("the webhook did not label it: %v", widget.GetLabels())
	}
	done("a mutating webhook changed an object")
	if err := c.Create(ctx, newWidget("forbidden", 1)); !apierrors.IsForbidden(err) {
		return fmt.Errorf("the webhook should deny it: %v", err)
	}
	done("a validating webhook denied one")
	if err := c.Create(ctx, newWidget("bad", -1)); !apierrors.IsInvalid(err) {
		return fmt.Errorf("the schema should refuse it: %v", err)
	}
	done("a schema refused one")
	manager.GetEventRecorder("clients").Eventf(widget, nil, corev1.EventTypeNormal, "Made", "Make", "made %s", widget.GetName())
	key := types.NamespacedName{Namespace: "default", Name: "one"}
	err := until(ctx, "reconciled: two pods ready, said in the status", func() bool {
		now := newWidget("one", 0)
		if c.Get(ctx, key, now) != nil {
			return false
		}
		ready, _, _ := unstructured.NestedInt64(now.Object, "status", "ready")
		return ready == 2
	})
	if err != nil {
		return err
	}
	if err := applied(ctx, c); err != nil {
		return err
	}
	err = until(ctx, "endpoints follow", func() bool {
		var slices discoveryv1.EndpointSliceList
		mine := client.MatchingLabels{"kubernetes.io/service-name": "one"}
		return c.List(ctx, &slices, client.InNamespace("default"), mine) == nil && len(slices.Items) == 1 && len(slices.Items[0].Endpoints) == 2
	})
	if err != nil {
		return err
	}
	var pods corev1.PodList
	mine := client.MatchingLabels{"widget": "one"}
	if err := c.List(ctx, &pods, client.InNamespace("default"), mine); err != nil || len(pods.Items) != 2 {
		return fmt.Errorf("two pods were expected: %d, %v", len(pods.Items), err)
	}
	var onNode corev1.PodList
	if err := c.List(ctx, &onNode, client.MatchingFields{"spec.nodeName": pods.Items[0].Spec.NodeName}); err != nil || len(onNode.Items) == 0 {
		return fmt.Errorf("by the index of nodes: %d pods, %v", len(onNode.Items), err)
	}
	done("lists from the cache, by an index")
	if err := paged(ctx, direct); err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(manager.GetConfig())
	if err != nil {
		return err
	}
	if err := typedInformer(ctx, clients); err != nil {
		return err
	}
	if err := runCommands(ctx, manager.GetConfig(), clients, &pods.Items[0]); err != nil {
		return err
	}
	done("exec by SPDY and by WebSocket")
	if err := forwardPort(ctx, manager.GetConfig(), clients, &pods.Items[0], 8080); err != nil {
		return err
	}
	done("port-forward by SPDY and by WebSocket")
	if err := c.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace("default"), mine); err != nil {
		return err
	}
	if err := c.Delete(ctx, widget); err != nil {
		return err
	}
	err = until(ctx, "deleted: the finalizer was taken away, what it owned is gone", func() bool {
		return apierrors.IsNotFound(c.Get(ctx, key, newWidget("one", 0))) && apierrors.IsNotFound(c.Get(ctx, key, &appsv1.Deployment{}))
	})
	if err != nil {
		return err
	}
	return until(ctx, "an event was recorded", func() bool {
		var events corev1.EventList
		_ = direct.List(ctx, &events, client.InNamespace("default"))
		for _, event := range events.Items {
			if event.Reason == "Made" {
				return true
			}
		}
		return false
	})
}

// Server-side apply from apply configurations: twice the same, then a conflict.
func applied(ctx context.Context, c client.Client) error {
	service := func(app string) *coreac.ServiceApplyConfiguration {
		port := coreac.ServicePort().WithPort(80).WithTargetPort(intstr.FromInt32(8080))
		return coreac.Service("one", "default").WithSpec(coreac.ServiceSpec().WithSelector(map[string]string{"widget": app}).WithPorts(port))
	}
	for range 2 {
		if err := c.Apply(ctx, service("one"), client.FieldOwner("clients")); err != nil {
			return err
		}
	}
	if err := c.Apply(ctx, service("two"), client.FieldOwner("others")); !apierrors.IsConflict(err) {
		return fmt.Errorf("a conflict was expected: %v", err)
	}
	done("server-side apply, and its conflict")
	return nil
}

// Metadata alone, page by page.
func paged(ctx context.Context, direct client.Reader) error {
	seen := 0
	next := ""
	for {
		var page metav1.PartialObjectMetadataList
		page.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
		if err := direct.List(ctx, &page, client.Limit(1), client.Continue(next)); err != nil {
			return err
		}
		seen += len(page.Items)
		if next = page.Continue; next == "" {
			break
		}
	}
	if seen < 2 {
		return fmt.Errorf("only %d objects came in pages", seen)
	}
	done("metadata in pages")
	return nil
}

// client-go's own informer (it asks for a streamed list first), with a change seen.
func typedInformer(ctx context.Context, clients *kubernetes.Clientset) error {
	factory := informers.NewSharedInformerFactory(clients, 0)
	maps := factory.Core().V1().ConfigMaps()
	lister := maps.Lister()
	factory.Start(ctx.Done())
	for _, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return errors.New("the informer does not sync")
		}
	}
	seen := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "seen-", Namespace: "default"}}
	made, err := clients.CoreV1().ConfigMaps("default").Create(ctx, seen, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return until(ctx, "an informer of client-go sees a change", func() bool {
		_, err := lister.ConfigMaps("default").Get(made.Name)
		return err == nil
	})
}
