// The law of service-planes.ts for iptables, with and without what kube-proxy leaves undone. It says nothing about ports
// that a ClusterIP does not have and about addresses of no Service, looks for refusals of external addresses at input and
// forward but not at output, and refuses rather than drops those outside of the source ranges of a Service without
// endpoints (which is left so).

import { test } from 'node:test'
import { createIptables } from '../../src/dataplane/iptables/iptables.ts'
import { frontendKeyOf } from '../../src/model/frontends.ts'
import { type Asked, checkLaw } from './service-planes.ts'

test('evaluated iptables program = the words of the model', () => {
	checkLaw({
		make: () => createIptables(),
		differs: (asked) => {
			if (meetsAnother(asked)) return 'skip'
			return !asked.admitted && !asked.served ? 'reject' : undefined
		},
	})
})

test('evaluated rules of kube-proxy = the words of the model, but for what it leaves undone', () => {
	checkLaw({
		make: () => createIptables({ exact: true }),
		differs: (asked) => {
			const { node, packet, found, admitted, served } = asked
			if (found?.kind !== 'frontend') return 'pass'
			if (meetsAnother(asked)) return 'skip'
			const { kind } = found.frontend
			const own = node.addresses.includes(packet.source) && !node.addresses.includes(packet.destination)
			if (own && (kind === 'external-ip' || kind === 'load-balancer') && !served) return 'pass'
			return !admitted && !served ? 'reject' : undefined
		},
		runs: 20,
	})
})

/** An endpoint that is another Service's external address, too: after translation that one's refusals hold for it. */
function meetsAnother({ model, found }: Asked): boolean {
	if (found?.kind !== 'frontend') return false
	const { port, frontend } = found
	return port.endpoints.some((e) => model.frontends.has(frontendKeyOf({ ...frontend, ip: e.ip, port: e.port })))
}
