// A small cluster with a reason for every kind of row: web (2 pods) in front of api, a database for api alone, a client in
// another namespace, an agent on the node's network, a load balancer and an Ingress.

import { parseManifests } from '../../src/kube/manifests.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel } from '../../src/model/network.ts'
import type { ClusterState } from '../../src/model/state.ts'
import { Reach } from '../../src/reach/engine.ts'
import { backendsOf, type IngressBackend } from '../../src/reach/ingresses.ts'
import { type Party, partiesOf } from '../../src/reach/parties.ts'
import { loadTexts } from '../scenarios/load.ts'

export interface Shop {
	readonly state: ClusterState
	readonly model: NetworkModel
	readonly reach: Reach
	readonly parties: readonly Party[]
	readonly ingresses: readonly IngressBackend[]
}

const pod = (name: string, namespace: string, ip: string, app: string, spec: string, owner = app) => `
apiVersion: v1
kind: Pod
metadata:
  name: ${name}
  namespace: ${namespace}
  labels: { app: ${app} }
  ownerReferences: [{ apiVersion: apps/v1, kind: StatefulSet, name: ${owner}, uid: ${owner}, controller: true }]
spec: { nodeName: node-1, ${spec} }
status: { phase: Running, podIP: ${ip} }
---`

const service = (
	name: string,
	ip: string,
	pods: Readonly<Record<string, string>>,
	port: number,
	target: number,
	more = '',
) => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { clusterIP: ${ip}, selector: { app: ${name} }, ports: [{ port: ${port}, targetPort: ${target} }]${more} }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${name}-1, namespace: shop, labels: { kubernetes.io/service-name: ${name} } }
addressType: IPv4
ports: [{ port: ${target} }]
endpoints:
${Object.entries(pods)
	.map(([pod, ip]) => `  - { addresses: [${ip}], targetRef: { kind: Pod, name: ${pod}, namespace: shop } }`)
	.join('\n')}
---`

export const cluster = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: v1
kind: Namespace
metadata: { name: other }
---
apiVersion: v1
kind: Node
metadata: { name: node-1 }
status: { addresses: [{ type: InternalIP, address: 172.18.0.2 }] }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: settings, namespace: shop }
data: { DB_HOST: db, DB_PORT: "5432" }
---${pod('web-0', 'shop', '10.244.1.81', 'web', 'containers: [{ name: c, ports: [{ name: http, containerPort: 8080 }], env: [{ name: API_URL, value: "http://api/v1" }] }]')}${pod('web-1', 'shop', '10.244.1.82', 'web', 'containers: [{ name: c, ports: [{ name: http, containerPort: 8080 }], env: [{ name: API_URL, value: "http://api/v1" }] }]')}${pod('api-0', 'shop', '10.244.1.90', 'api', 'containers: [{ name: c, args: ["--listen=:9000"], envFrom: [{ configMapRef: { name: settings } }] }]')}${pod('db-0', 'shop', '10.244.1.32', 'db', 'containers: [{ name: c }]')}${pod('client-0', 'other', '10.244.1.7', 'client', 'containers: [{ name: c, command: [curl, "web.shop:80"] }]')}${pod('agent-0', 'other', '172.18.0.2', 'agent', 'hostNetwork: true, containers: [{ name: c }]')}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: shop, namespace: shop }
spec: { rules: [{ host: shop.example, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] } }] }
---${service('web', '10.96.0.20', { 'web-0': '10.244.1.81', 'web-1': '10.244.1.82' }, 80, 8080, ', type: LoadBalancer')}${service('api', '10.96.0.21', { 'api-0': '10.244.1.90' }, 80, 9000)}${service('db', '10.96.0.22', { 'db-0': '10.244.1.32' }, 5432, 5432)}
`

export const policies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: db, namespace: shop }
spec:
  podSelector: { matchLabels: { app: db } }
  ingress:
    - from: [{ podSelector: { matchLabels: { app: api } } }]
      ports: [{ port: 5432 }]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: api, namespace: shop }
spec:
  podSelector: { matchLabels: { app: api } }
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{ podSelector: { matchLabels: { app: web } } }, { ipBlock: { cidr: 192.0.2.0/24 } }]
      ports: [{ port: 9000 }]
  egress:
    - to: [{ podSelector: {} }]
`

export function shop(...policyTexts: readonly string[]): Shop {
	const texts = [
		{ file: 'cluster.yaml', text: cluster },
		...policyTexts.map((text, i) => ({ file: i === 0 ? 'policies.yaml' : `policies-${i}.yaml`, text })),
	]
	const state = loadTexts(...texts)
	const model = build(state)
	const reach = new Reach({ model })
	const objects = texts.flatMap(({ file, text }) => parseManifests(text, file).objects.map((o) => o.object))
	return { state, model, reach, parties: partiesOf(model, reach), ingresses: backendsOf(model, state, objects) }
}

export function configMaps() {
	return parseManifests(cluster, 'cluster.yaml')
		.objects.map((o) => o.object)
		.filter((o) => o.kind === 'ConfigMap')
}
