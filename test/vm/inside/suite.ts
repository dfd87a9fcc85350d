// Run inside the machine: the shared suite of Service data planes, by IPVS. The scheduler hashes the client's address and
// port: rr would give two clients that take turns one endpoint each.

import { createIpvs, ipvsUsable } from '../../../src/dataplane/ipvs/ipvs.ts'
import { runServicesSuite } from '../../net/services-suite.ts'

const clients =
	'IPVS cannot tell clients apart: under policy Local pods and the node itself get endpoints of the node, too'
const server = 'IPVS ends the connections of a virtual server or a UDP destination that is taken away'
const slow = 'takes minutes on an emulated processor'
const reasons: Readonly<Record<string, string | undefined>> = {
	'NodePort, policy Local: outside keeps its source and stays on the node, the cluster reaches every endpoint': clients,
	'NodePort, policy Local: a pod reaches itself through another node': clients,
	'load balancer, policy Local: source kept, local endpoints, dropped where there is none': clients,
	'load balancer: source ranges hold for everybody, at the address alone':
		'the filter of source ranges is at INPUT, where packets of the node itself do not pass',
	'load balancer: its address on the node itself': clients,
	'more than eight endpoints, at every kind of address': clients,
	'terminating endpoints serve while no other is ready; those that do not serve never': clients,
	'externalIPs: an address of a node, beside its own ports':
		'IPVS takes only addresses that are on the node: those of other nodes are left to them',
	'session affinity ends after its time without a connection':
		'the kernel keeps a client as long as any connection of it is remembered, two minutes after its end',
	'an established connection outlives its endpoint, its Service and the next one of the address': server,
	'UDP: a client whose endpoint left keeps it without the flush, and moves with it': server,
	'UDP: a client stays with an endpoint that drains, until that serves no more': server,
	'10,000 Services change while requests flow: no wrong endpoint': slow,
	'leaves marks and tables of others alone':
		'kube-proxy marks what is to be masqueraded with bit 0x4000 of the packet mark (the other bits stay)',
	'a restart loses no connection, neither old nor new': slow,
}

runServicesSuite('ipvs', {
	make: async (options) => [createIpvs({ ...options, scheduler: () => 'mh' })],
	skip: (name) => reasons[name],
	unusable: (await ipvsUsable()) ?? false,
})
