package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// A command's streams and its exit code, by client-go's two executors.
func runCommands(ctx context.Context, config *rest.Config, clients *kubernetes.Clientset, pod *corev1.Pod) error {
	request := clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("exec")
	request.VersionedParams(&corev1.PodExecOptions{
		Container: pod.Spec.Containers[0].Name, Stdin: true, Stdout: true, Stderr: true,
		Command: []string{"sh", "-c", "cat; echo fault >&2; exit 42"},
	}, scheme.ParameterCodec)
	bySpdy, err := remotecommand.NewSPDYExecutor(config, "POST", request.URL())
	if err != nil {
		return err
	}
	byWebSocket, err := remotecommand.NewWebSocketExecutor(config, "GET", request.URL().String())
	if err != nil {
		return err
	}
	for name, executor := range map[string]remotecommand.Executor{"SPDY": bySpdy, "WebSocket": byWebSocket} {
		var out, fault bytes.Buffer
		given := strings.Repeat("0123456789abcdef\n", 20_000)
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader(given), Stdout: &out, Stderr: &fault})
		var code exec.CodeExitError
		if !errors.As(err, &code) || code.Code != 42 {
			return fmt.Errorf("%s: exit code 42 was expected, got %v", name, err)
		}
		if out.String() != given || fault.String() != "fault\n" {
			return fmt.Errorf("%s: %d bytes came back of %d, and on stderr %q", name, out.Len(), len(given), fault.String())
		}
	}
	return nil
}

func forwardPort(ctx context.Context, config *rest.Config, clients *kubernetes.Clientset, pod *corev1.Pod, port int) error {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return err
	}
	url := clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialer(url, config)
	if err != nil {
		return err
	}
	overSpdy := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", url)
	for _, dialer := range []httpstream.Dialer{overSpdy, overWebSocket} {
		stop, ready := make(chan struct{}), make(chan struct{})
		forwarder, err := portforward.New(dialer, []string{fmt.Sprintf("0:%d", port)}, stop, ready, io.Discard, io.Discard)
		if err != nil {
			return err
		}
		failed := make(chan error, 1)
		go func() { failed <- forwarder.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-failed:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("port-forward is not ready")
		}
		ports, err := forwarder.GetPorts()
		if err != nil {
			return err
		}
		answer, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local))
		if err != nil {
			return err
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		close(stop)
		if err != nil {
			return err
		}
		if !strings.Contains(string(body), pod.Name) {
			return fmt.Errorf("somebody else answered: %s", body)
		}
	}
	return nil
}
