// The law of service-planes.ts for IPVS, where it holds. IPVS cannot tell clients apart, its packets do not pass INPUT
// when they come from the node itself, and all of an external address is the node's, not only a Service's port.

import { test } from 'node:test'
import { createIpvs } from '../../src/dataplane/ipvs/ipvs.ts'
import { placeOf, treat } from '../../src/model/frontends.ts'
import { type Asked, checkLaw } from './service-planes.ts'

test('evaluated IPVS program = the words of the model', () => {
	checkLaw({ make: () => createIpvs(), differs })
})

function differs({ model, node, packet, found, admitted }: Asked): 'drop' | 'reject' | 'pass' | 'skip' | undefined {
	const { source, destination } = packet
	const own = node.addresses.includes(source)
	const isTaken = (ip: string) => [...model.frontends.keys()].some((key) => key.startsWith(`${ip} `))
	// A client whose address a Service claims as external is, for this node, the node itself.
	if (isTaken(source)) return 'skip'
	const owner = model.addresses.get(destination)
	const foreign = owner !== undefined && owner.kind !== 'service' && !node.addresses.includes(destination)
	// Of the addresses of other nodes and of pods nothing is taken.
	if (foreign) return 'pass'
	if (found === undefined) return isTaken(destination) && !node.addresses.includes(destination) ? 'reject' : undefined
	if (found.kind === 'unknown-port') return undefined
	const { service, port, frontend } = found
	// An endpoint whose address a Service claims as external is cut off: the node takes its packets.
	if (port.endpoints.some((e) => isTaken(e.ip))) return 'skip'
	const client = { node: node.name, ...(node.zone === undefined ? {} : { zone: node.zone }) }
	// Source ranges are looked at on the way in.
	if (own && !admitted) return 'skip'
	if (!admitted) return undefined
	const outside = treat(service, port, frontend, { ...client, place: 'outside' }).serving
	if (frontend.traffic === 'internal') return undefined
	// Local endpoints serve pods and the node as well; where there are none all endpoints do.
	const spared = placeOf(model, node, source) !== 'outside' && service.externalTrafficPolicy === 'Local'
	if (spared && outside.none === undefined) return 'skip'
	// From an address of the node to a node port there is nothing to translate.
	return own && spared && frontend.kind === 'node-port' ? 'skip' : undefined
}
