package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// Labels every Widget.
func label(_ context.Context, request admission.Request) admission.Response {
	widget := &unstructured.Unstructured{}
	if err := json.Unmarshal(request.Object.Raw, widget); err != nil {
		return admission.Errored(400, err)
	}
	labels := widget.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels["labelled-by"] = "webhook"
	widget.SetLabels(labels)
	after, err := json.Marshal(widget)
	if err != nil {
		return admission.Errored(500, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, after)
}

// Refuses Widgets by one name.
func judge(_ context.Context, request admission.Request) admission.Response {
	if request.Name == "forbidden" {
		return admission.Denied("nobody may be called so")
	}
	return admission.Allowed("").WithWarnings("widgets are for tests")
}

// A certificate of its own for 127.0.0.1, in a folder as the server of controller-runtime wants it.
func makeCertificate(folder string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(filepath.Join(folder, "tls.crt"), certificate, 0o600); err != nil {
		return nil, err
	}
	return certificate, os.WriteFile(filepath.Join(folder, "tls.key"),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}

// A port nobody has at the moment.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func newWebhooks(folder string, port int) webhook.Server {
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: folder})
	server.Register("/label", &admission.Webhook{Handler: admission.HandlerFunc(label)})
	server.Register("/judge", &admission.Webhook{Handler: admission.HandlerFunc(judge)})
	return server
}

func registerWebhooks(ctx context.Context, c client.Client, port int, authority []byte) error {
	none := admissionv1.SideEffectClassNone
	rules := []admissionv1.RuleWithOperations{{
		Operations: []admissionv1.OperationType{admissionv1.Create},
		Rule: admissionv1.Rule{
			APIGroups: []string{widgetKind.Group}, APIVersions: []string{"v1"}, Resources: []string{"widgets"},
		},
	}}
	config := func(path string) admissionv1.WebhookClientConfig {
		url := fmt.Sprintf("https://127.0.0.1:%d/%s", port, path)
		return admissionv1.WebhookClientConfig{URL: &url, CABundle: bytes.TrimSpace(authority)}
	}
	mutating := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "clients-label"},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "label.clients.example.com", ClientConfig: config("label"), Rules: rules,
			SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		}},
	}
	validating := &admissionv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "clients-judge"},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name: "judge.clients.example.com", ClientConfig: config("judge"), Rules: rules,
			SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		}},
	}
	if err := c.Create(ctx, mutating); err != nil {
		return err
	}
	return c.Create(ctx, validating)
}
