// Generated clusters in which policies meet often: nodes, namespaces and pods first, then many policies among other
// edits. Peers and ports of every form, of both families.

import fc from 'fast-check'
import type { KubeObject } from '../../src/kube/objects/meta.ts'
import { keyOf } from '../../src/kube/objects/meta.ts'
import { type Edit, edits } from './cluster.ts'
import { app, clean, mostly } from './services.ts'
import './seed.ts'

const namespace = fc.constantFrom('default', 'shop')

const selector = fc.oneof(
	{ weight: 1, arbitrary: fc.constant({}) },
	{ weight: 4, arbitrary: fc.record({ matchLabels: fc.record({ app }) }) },
	{
		weight: 2,
		arbitrary: fc.record({
			matchLabels: fc.option(fc.record({ app }), { nil: undefined }),
			matchExpressions: fc.tuple(
				fc.record({
					key: fc.constantFrom('app', 'tier'),
					operator: fc.constantFrom('In', 'NotIn', 'Exists', 'DoesNotExist'),
					values: fc.constantFrom(['a'], ['x', 'y']),
				}),
			),
		}),
	},
)

const namespaceSelector = fc.constantFrom(
	{},
	{ matchLabels: { team: 'red' } },
	{ matchLabels: { 'kubernetes.io/metadata.name': 'shop' } },
	{ matchExpressions: [{ key: 'team', operator: 'DoesNotExist', values: [] }] },
)

const block = fc.constantFrom(
	{ cidr: '10.244.0.0/16' },
	{ cidr: '10.244.1.0/24' },
	{ cidr: '0.0.0.0/0' },
	{ cidr: '::/0' },
	{ cidr: '0.0.0.0/0', except: ['10.244.1.0/24', '172.18.0.0/16'] },
	{ cidr: '10.244.0.0/16', except: ['10.244.0.0/17'] },
	{ cidr: '10.244.0.0/16', except: ['10.244.0.0/16'] },
	{ cidr: '172.18.0.0/16' },
	{ cidr: '203.0.113.0/29' },
	{ cidr: 'fd00:10:244::/48', except: ['fd00:10:244:1::/64'] },
	{ cidr: 'not a network' },
)

const peer = fc.oneof(
	fc.record({ podSelector: selector }),
	fc.record({ namespaceSelector }),
	fc.record({ podSelector: selector, namespaceSelector }),
	fc.record({ ipBlock: block }),
	fc.constant({}),
)

const port = fc.constantFrom(
	{ port: 8080 },
	{ port: 9090, protocol: 'TCP' },
	{ port: 'http' },
	{ port: 'alt' },
	{ port: 'dns', protocol: 'UDP' },
	{ protocol: 'UDP' },
	{ port: 8080, protocol: 'SCTP' },
	{ port: 9000, endPort: 9100, protocol: 'TCP' },
	{ port: 8080, endPort: 8080 },
	{ port: 8080, endPort: 80 },
)

const rules = (side: 'from' | 'to') =>
	fc.array(
		fc
			.record({
				peers: fc.option(fc.array(peer, { maxLength: 3 })),
				ports: fc.option(fc.array(port, { maxLength: 3 })),
			})
			.map(({ peers, ports }) => clean({ [side]: peers ?? undefined, ports: ports ?? undefined })),
		{ maxLength: 3 },
	)

const policy = fc
	.record({
		namespace,
		index: fc.integer({ min: 0, max: 3 }),
		podSelector: selector,
		types: fc.constantFrom(undefined, ['Ingress'], ['Egress'], ['Ingress', 'Egress']),
		ingress: fc.option(rules('from')),
		egress: fc.option(rules('to')),
		gone: mostly(10),
		audit: mostly(15),
	})
	.map(({ gone, ...p }): Edit => {
		const object = clean({
			apiVersion: 'networking.k8s.io/v1',
			kind: 'NetworkPolicy',
			metadata: {
				name: `np${p.index}`,
				namespace: p.namespace,
				annotations: p.audit ? { 'podwire.dev/audit': 'true' } : undefined,
			},
			spec: {
				podSelector: p.podSelector,
				policyTypes: p.types,
				ingress: p.ingress ?? undefined,
				egress: p.egress ?? undefined,
			},
		}) as unknown as KubeObject
		return gone ? { delete: { kind: 'NetworkPolicy', key: keyOf(object) } } : { set: object }
	})

/** A cluster, then policies and other edits in turn. */
export const policyEdits: fc.Arbitrary<readonly Edit[]> = fc
	.record({ before: edits, policies: fc.array(policy, { minLength: 3, maxLength: 10 }), after: edits })
	.map(({ before, policies, after }) => {
		// Of the second life only the edits: its nodes are those of the first.
		const rest = after.slice(6, 30)
		const mixed = policies.flatMap((p, i) => [p, ...rest.slice(i * 2, i * 2 + 2)])
		return [...before, ...mixed]
	})
