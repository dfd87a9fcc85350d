// The law of service-planes.ts for iptables. kube-proxy's iptables mode says nothing about ports that a ClusterIP does not
// have, refuses rather than drops those outside of the source ranges of a Service that nobody serves, and looks for
// refusals of external addresses at input and forward, not at output.

import { test } from 'node:test'
import { createIptables } from '../../src/dataplane/iptables/iptables.ts'
import { checkLaw } from './service-planes.ts'

test('evaluated iptables program = the words of the model', () => {
	checkLaw({
		make: () => createIptables(),
		differs: ({ node, packet, found, admitted, served }) => {
			if (found === undefined) return undefined
			if (found.kind === 'unknown-port') return 'pass'
			const { kind } = found.frontend
			const own = node.addresses.includes(packet.source) && !node.addresses.includes(packet.destination)
			if (own && (kind === 'external-ip' || kind === 'load-balancer') && !served) return 'pass'
			return !admitted && !served ? 'reject' : undefined
		},
	})
})
