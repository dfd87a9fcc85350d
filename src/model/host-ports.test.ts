// Who answers at a port of a node: addresses, protocols, families, and which of several.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { tableOf } from '../base/table.ts'
import { clash, hostPortAt, hostPortsOf } from './host-ports.ts'
import type { ContainerPort, NetworkModel, Node, Pod } from './network.ts'
import { objectOrigin } from './origin.ts'

type Ask = Partial<ContainerPort> & { readonly hostPort: number }

function pod(name: string, asks: readonly Ask[], more: Partial<Pod> = {}): Pod {
	const key = `default/${name}`
	const origin = objectOrigin('Pod', key)
	const last = name.charCodeAt(0)
	return {
		key,
		uid: name,
		namespace: 'default',
		name,
		labels: {},
		node: 'node-1',
		ips: [parseIp(`10.244.0.${last}`), parseIp(`fd00:10::${last}`)],
		hostNetwork: false,
		phase: 'Running',
		ready: false,
		terminating: false,
		ports: asks.map((ask) => ({ container: 'c', port: 80, protocol: 'TCP', origin, ...ask })),
		dns: { nameservers: [], searches: [], options: [], origin },
		owner: { kind: 'Pod', key },
		origin,
		...more,
	}
}

const addresses = ['172.18.0.2', '172.19.0.2', 'fd00:18::2'].map(parseIp)
const node = { name: 'node-1', addresses } as unknown as Node

function answers(pods: readonly Pod[], at: string, number: number, protocol: Protocol = 'TCP'): string | undefined {
	const model = { pods: tableOf(pods.map((p) => [p.key, p])) } as unknown as NetworkModel
	const found = hostPortAt(model, node, parseIp(at), protocol, number)
	return found === undefined ? undefined : `${found.pod.name} ${found.to.ip}:${found.to.port}`
}

test('who answers at a port of the node', () => {
	const any = [{ hostPort: 8080 }]
	const one = [{ hostPort: 8080, hostIp: addresses[0]!, port: 81 }]
	const cases: readonly (readonly [what: string, got: string | undefined, want: string | undefined])[] = [
		['every address', answers([pod('a', any)], '172.19.0.2', 8080), 'a 10.244.0.97:80'],
		['the other family', answers([pod('a', any)], 'fd00:18::2', 8080), 'a fd00:10::97:80'],
		['another port', answers([pod('a', any)], '172.18.0.2', 80), undefined],
		['another protocol', answers([pod('a', any)], '172.18.0.2', 8080, 'UDP'), undefined],
		['an address of somebody else', answers([pod('a', any)], '172.18.0.3', 8080), undefined],
		['a pod of another node', answers([pod('a', any, { node: 'node-2' })], '172.18.0.2', 8080), undefined],
		['a pod that has ended', answers([pod('a', any, { phase: 'Succeeded' })], '172.18.0.2', 8080), undefined],
		['a pod without an address', answers([pod('a', any, { ips: [] })], '172.18.0.2', 8080), undefined],
		['its hostIP', answers([pod('a', one)], '172.18.0.2', 8080), 'a 10.244.0.97:81'],
		['not its hostIP', answers([pod('a', one)], '172.19.0.2', 8080), undefined],
		[
			'a hostIP goes before all addresses',
			answers([pod('a', any), pod('b', one)], '172.18.0.2', 8080),
			'b 10.244.0.98:81',
		],
		['all others stay', answers([pod('a', any), pod('b', one)], '172.19.0.2', 8080), 'a 10.244.0.97:80'],
		['the first by name', answers([pod('b', any), pod('a', any)], '172.18.0.2', 8080), 'a 10.244.0.97:80'],
		[
			'the one that stays',
			answers([pod('a', any, { terminating: true }), pod('b', any)], '172.18.0.2', 8080),
			'b 10.244.0.98:80',
		],
		[
			'0.0.0.0 is all of IPv4',
			answers([pod('a', [{ hostPort: 1, hostIp: parseIp('0.0.0.0') }])], '172.19.0.2', 1),
			'a 10.244.0.97:80',
		],
		[
			'and none of IPv6',
			answers([pod('a', [{ hostPort: 1, hostIp: parseIp('0.0.0.0') }])], 'fd00:18::2', 1),
			undefined,
		],
	]
	for (const [what, got, want] of cases) assert.equal(got, want, what)
})

test('what cannot be had side by side', () => {
	const [two] = hostPortsOf(pod('a', [{ hostPort: 1 }]))
	const of = (ask: Ask) => hostPortsOf(pod('b', [ask]))[0]!
	const cases: readonly (readonly [Ask, boolean])[] = [
		[{ hostPort: 1 }, true],
		[{ hostPort: 2 }, false],
		[{ hostPort: 1, protocol: 'UDP' }, false],
		[{ hostPort: 1, hostIp: addresses[0]! }, true],
		[{ hostPort: 1, hostIp: addresses[2]! }, false],
	]
	for (const [ask, want] of cases) assert.equal(clash(two!, of(ask)), want, JSON.stringify(ask))
	assert.equal(clash(of({ hostPort: 1, hostIp: addresses[0]! }), of({ hostPort: 1, hostIp: addresses[1]! })), false)
})
