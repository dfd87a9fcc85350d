// What every cluster has from the start: its first namespaces, the ServiceCIDR and the Service default/kubernetes.
// Made through the API like anything else; what is there already stays.

import { type Cidr, cidrNth, familyOf, parseIp } from '../base/ip.ts'
import { isAlreadyExists } from '../kube/answer.ts'
import { createKubeClient } from '../kube/client.ts'
import { endpointSlices, endpoints, namespaces, serviceCidrs, services } from '../kube/kinds.ts'
import type { Transport } from '../kube/transport.ts'

export async function bootstrap(
	transport: Transport,
	options: {
		readonly serviceCidrs: readonly Cidr[]
		readonly advertise?: { readonly ip: string; readonly port: number }
	},
): Promise<void> {
	const client = createKubeClient(transport, { fieldManager: 'kube-apiserver', userAgent: 'kube-apiserver' })
	const make = async (work: Promise<unknown>) => {
		try {
			await work
		} catch (e) {
			if (!isAlreadyExists(e)) throw e
		}
	}
	await Promise.all(
		['default', 'kube-system', 'kube-public', 'kube-node-lease'].map((name) =>
			make(client.create(namespaces, { metadata: { name } })),
		),
	)
	await make(client.create(serviceCidrs, { metadata: { name: 'kubernetes' }, spec: { cidrs: options.serviceCidrs } }))
	const labels = { component: 'apiserver', provider: 'kubernetes' }
	await make(
		client.create(services, {
			metadata: { name: 'kubernetes', namespace: 'default', labels },
			spec: {
				type: 'ClusterIP',
				clusterIP: cidrNth(options.serviceCidrs[0]!, 1n),
				ports: [{ name: 'https', protocol: 'TCP', port: 443, targetPort: options.advertise?.port ?? 6443 }],
			},
		}),
	)
	if (options.advertise === undefined) return
	const ip = parseIp(options.advertise.ip)
	const ports = [{ name: 'https', port: options.advertise.port, protocol: 'TCP' as const }]
	const slice = {
		metadata: { name: 'kubernetes', namespace: 'default', labels: { 'kubernetes.io/service-name': 'kubernetes' } },
		addressType: familyOf(ip) === 4 ? ('IPv4' as const) : ('IPv6' as const),
		endpoints: [{ addresses: [ip], conditions: { ready: true } }],
		ports,
	}
	await client.apply(endpointSlices, slice, { force: true })
	// The old form of the same, which a server with this name still keeps itself.
	const old = {
		metadata: {
			name: 'kubernetes',
			namespace: 'default',
			labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' },
		},
		subsets: [{ addresses: [{ ip }], ports }],
	}
	await client.apply(endpoints, old, { force: true })
}
