// The wiring one node needs: a route to every other node's pods, one to each pod of its own, and the settings of a
// router. Pure. Attachments come from the agent's durable record, not from the model: what CNI ADD promised stays.

import { type Cidr, familyOf, hostCidr, type Ip } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table, tableOf } from '../../base/table.ts'
import type { NetworkModel, Node, NodeName } from '../../model/network.ts'
import { type Origin, objectOrigin } from '../../model/origin.ts'
import { type Attachment, type LinksProgram, type Route, routeKey } from './program.ts'

/** The settings of a node's namespace. */
const sysctls: Table<string, string> = tableOf([
	['net.ipv4.ip_forward', '1'],
	// The larger of `all` and the interface's own counts, and a new interface takes `default`: pods may send from
	// their own address only (RFC 3704, strict), while the uplink keeps what it was given.
	['net.ipv4.conf.all.rp_filter', '0'],
	['net.ipv4.conf.default.rp_filter', '1'],
	// A pod that reaches itself through a Service comes back on the interface it left by: no redirect for that.
	['net.ipv4.conf.all.send_redirects', '0'],
	['net.ipv4.conf.default.send_redirects', '0'],
])
const sysctls6: Table<string, string> = sysctls.set('net.ipv6.conf.all.forwarding', '1')

/**
 * `uplink`: name of the interface other nodes are reached by. `earlier`: the result for the state before, whose
 * unchanged parts are kept by identity.
 */
export function compileLinks(
	model: NetworkModel,
	node: NodeName,
	attachments: Table<string, Attachment>,
	uplink: string,
	earlier?: LinksProgram,
): LinksProgram {
	const kept = earlier?.attachments ?? emptyTable<string, Attachment>()
	const nodeRoutes = routesToNodes(model, node, uplink)
	const routes = (earlier?.routes ?? emptyTable<string, Route>()).mutate((draft) => {
		const put = (route: Route) => {
			const key = routeKey(route.destination)
			const before = draft.get(key)
			if (before === undefined || !sameRoute(before, route)) draft.set(key, route)
		}
		// First what leaves, then what comes: an address may pass from one pod to the next.
		const come: Attachment[] = []
		diffTables(kept, attachments, (_, before, after) => {
			for (const ip of before?.ips ?? []) draft.delete(routeKey(hostCidr(ip)))
			if (after !== undefined) come.push(after)
		})
		for (const attachment of come) {
			for (const ip of attachment.ips) put(routeToPod(attachment, ip))
		}
		for (const key of earlier === undefined ? [] : [...earlier.routes.keys()]) {
			const route = draft.get(key)
			if (route !== undefined && isNodeRoute(route, uplink) && !nodeRoutes.has(key)) draft.delete(key)
		}
		for (const route of nodeRoutes.values()) put(route)
	})
	const six = (model.nodes.get(node)?.podCidrs ?? []).some((cidr) => familyOf(cidr) === 6)
	return { attachments, routes, sysctls: six ? sysctls6 : sysctls }
}

function isNodeRoute(route: Route, uplink: string): boolean {
	return route.unreachable === true || route.device === uplink
}

function routesToNodes(model: NetworkModel, self: NodeName, uplink: string): Map<string, Route> {
	const routes = new Map<string, Route>()
	for (const [name, node] of model.nodes) {
		node.podCidrs.forEach((destination, i) => {
			const because = [podCidrOrigin(node, i)]
			if (name === self) {
				// Pods have longer prefixes; for an address no pod has the answer is "unreachable", not the default route.
				routes.set(routeKey(destination), { destination, device: '', unreachable: true, because })
				return
			}
			const via = node.addresses.find((ip) => familyOf(ip) === familyOf(destination))
			if (via !== undefined) routes.set(routeKey(destination), { destination, via, device: uplink, because })
		})
	}
	return routes
}

function podCidrOrigin(node: Node, i: number): Origin {
	const field = i === 0 ? 'spec.podCIDR' : `spec.podCIDRs[${i}]`
	const source = 'source' in node.origin ? node.origin.source : undefined
	return objectOrigin('Node', node.name, field, source)
}

function routeToPod(attachment: Attachment, ip: Ip): Route {
	return { destination: hostCidr(ip) as Cidr, device: attachment.hostInterface, because: attachment.because }
}

/** Whether the kernel would see no difference and a person would read the same reasons. */
function sameRoute(a: Route, b: Route): boolean {
	return (
		a.via === b.via &&
		a.device === b.device &&
		a.unreachable === b.unreachable &&
		(a.because === b.because || JSON.stringify(a.because) === JSON.stringify(b.because))
	)
}
