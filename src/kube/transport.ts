// The seam to Kubernetes: one function. The embedded API server is one; a kubeconfig makes another.

/**
 * Answers one HTTP request. The URL's host is ignored; the path is the API path
 * (`/api/v1/pods?watch=true`). A watch answers with a streaming body of JSON lines.
 * Aborting `request.signal` ends the stream. Upgrades (exec, port-forward) are not part of it.
 */
export type Transport = (request: Request) => Promise<Response>
