// What kube-proxy's iptables mode writes, as iptables-restore reads it: one rule a Service in KUBE-SERVICES, which a
// packet meets in turn; a chain a Service, a chain an endpoint. The baseline for what a connection costs there.

import type { Ip } from '../../src/base/ip.ts'

export interface LayoutService {
	readonly ip: Ip
	readonly port: number
	readonly endpoints: readonly { readonly ip: Ip; readonly port: number }[]
}

/** In the order given: the last one is met last. */
export function iptablesLayout(services: readonly LayoutService[], podCidr: string): string {
	const chains: string[] = []
	const first: string[] = []
	const rules: string[] = []
	for (const [i, service] of services.entries()) {
		const chain = `KUBE-SVC-${name(i)}`
		chains.push(`:${chain} - [0:0]`)
		const comment = `-m comment --comment "default/service-${i} cluster IP"`
		first.push(`-A KUBE-SERVICES -d ${service.ip}/32 -p tcp ${comment} -m tcp --dport ${service.port} -j ${chain}`)
		rules.push(
			`-A ${chain} ! -s ${podCidr} -d ${service.ip}/32 -p tcp ${comment} -m tcp --dport ${service.port} -j KUBE-MARK-MASQ`,
		)
		for (const [k, endpoint] of service.endpoints.entries()) {
			const target = `KUBE-SEP-${name(i)}${k}`
			const left = service.endpoints.length - k
			const chance = left === 1 ? '' : ` -m statistic --mode random --probability ${(1 / left).toFixed(10)}`
			chains.push(`:${target} - [0:0]`)
			rules.push(
				`-A ${chain} -m comment --comment "default/service-${i} -> ${endpoint.ip}:${endpoint.port}"${chance} -j ${target}`,
				`-A ${target} -s ${endpoint.ip}/32 -m comment --comment "default/service-${i}" -j KUBE-MARK-MASQ`,
				`-A ${target} -p tcp -m comment --comment "default/service-${i}" -m tcp -j DNAT --to-destination ${endpoint.ip}:${endpoint.port}`,
			)
		}
	}
	return [
		'*nat',
		':PREROUTING ACCEPT [0:0]',
		':OUTPUT ACCEPT [0:0]',
		':POSTROUTING ACCEPT [0:0]',
		':KUBE-SERVICES - [0:0]',
		':KUBE-POSTROUTING - [0:0]',
		':KUBE-MARK-MASQ - [0:0]',
		...chains,
		'-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
		'-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
		'-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
		'-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
		'-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000',
		'-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE',
		'-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000',
		...first,
		...rules,
		'COMMIT',
		'',
	].join('\n')
}

function name(i: number): string {
	return i.toString(36).toUpperCase().padStart(16, '0')
}
