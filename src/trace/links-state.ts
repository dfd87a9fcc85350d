// What the wiring read back from a node says against a packet that has a route: a node that does not forward, an
// interface that is off, a pod that would not take the packet. undefined: nothing.

import type { NodePrograms } from '../agent/protocol.ts'
import { familyOf, type Ip } from '../base/ip.ts'
import { routeOf } from '../dataplane/links/evaluate.ts'
import type { Attachment } from '../dataplane/links/program.ts'

const forwardingOf = { 4: 'net.ipv4.ip_forward', 6: 'net.ipv6.conf.all.forwarding' } as const

/** The node is no router for addresses of this family (Documentation/networking/ip-sysctl). */
export function whyNotForwarded({ node, links }: NodePrograms, to: Ip): string | undefined {
	const name = forwardingOf[familyOf(to)]
	const value = links.sysctls.get(name)
	return value === undefined || value !== '0' ? undefined : `${node} forwards nothing: ${name} is 0`
}

/**
 * What came in by a pod's interface from an address that is not routed back there (RFC 3704, strict): the kernel looks
 * after prerouting. A pod's interface has the setting of `default` from the time it was made.
 */
export function whyNotBelieved(
	{ node, links }: NodePrograms,
	source: Ip,
	device: string | undefined,
): string | undefined {
	const strict = ['all', 'default'].some((which) => links.sysctls.get(`net.ipv4.conf.${which}.rp_filter`) === '1')
	if (!strict || device === undefined || familyOf(source) !== 4) return undefined
	if (![...links.attachments.values()].some((attachment) => attachment.hostInterface === device)) return undefined
	const back = routeOf(links, source, 'node')
	if (back !== undefined && back.device === device) return undefined
	return `${node} drops what comes from ${source} by ${device}, for the way back is another (rp_filter)`
}

/** An interface of the node, beside those of its pods, that carries nothing. */
export function whyNotCarried({ node, links }: NodePrograms, device: string): string | undefined {
	return links.surroundings?.down?.includes(device) === true ? `${device} of ${node} carries nothing` : undefined
}

/** A pod's veth, both ends as they were found, against a packet to `ip` (to undefined: one that the pod sends). */
export function whyNotTaken({ pod, hostInterface, podInterface, found }: Attachment, ip?: Ip): string | undefined {
	if (found === undefined) return undefined
	const { host, pod: inside } = found
	if (host === undefined) return `interface ${hostInterface} of pod ${pod} is missing`
	if (inside === undefined) return `pod ${pod} has no interface ${podInterface}`
	if (!host.up) return `interface ${hostInterface} of pod ${pod} is down`
	if (!inside.up) return `interface ${podInterface} in pod ${pod} is down`
	if (ip === undefined) return undefined
	if (!inside.ips.includes(ip)) return `pod ${pod} does not have the address ${ip}`
	const mac = host.neighbours.find((n) => n.ip === ip)?.mac
	// Without a permanent entry the pod is asked, and answers.
	return mac === undefined || mac === inside.mac
		? undefined
		: `the neighbour entry of ${ip} says ${mac}, pod ${pod} has ${inside.mac}`
}
