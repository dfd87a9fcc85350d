// What IPVS mode holds for known Services, and what of it changes when they do.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { sketchModel, sketchService } from '../../../test/net/services-world.ts'
import type { Cidr, Ip } from '../../base/ip.ts'
import { parseRule } from '../../linux/iptables/parse.ts'
import type { TableName } from '../../linux/iptables/program.ts'
import { ruleText } from '../../linux/iptables/render.ts'
import type { Scheduler } from '../../linux/ipvs/ipvs.ts'
import type { Service } from '../../model/network.ts'
import { diffPrograms } from './change.ts'
import { createIpvs } from './ipvs.ts'
import { setIds, setName } from './layout.ts'
import type { IpvsProgram } from './program.ts'

const ip = (text: string) => text as Ip
const at = (i: number, node = 'node-1') => ({ ip: ip(`10.244.1.${i}`), port: 8080, node })

function web(more: Partial<Service> = {}, endpoints = [at(2), at(3)], nodePort?: number): Service {
	const service = sketchService({ name: 'web', ips: ['10.96.0.10'], ports: [{ port: 80, endpoints }], more })
	return nodePort === undefined ? service : { ...service, ports: service.ports.map((port) => ({ ...port, nodePort })) }
}

const compile = (...services: Service[]) => createIpvs().compile(sketchModel(services), 'node-1')
const entries = (program: IpvsProgram) => [...program.entries.keys()].sort()

/** kube-proxy's spelling: lines `-A CHAIN …`; every chain they name must hold exactly them. */
function assertChains(program: IpvsProgram, table: TableName, text: string): void {
	const expected = new Map<string, string[]>()
	for (const line of text.trim().split('\n')) {
		const [, chain = '', rest = ''] = /^\s*-A (\S+) ?(.*)$/.exec(line) ?? []
		expected.set(chain, [...(expected.get(chain) ?? []), ruleText(parseRule(rest, 4), 4)])
	}
	for (const [chain, rules] of expected) {
		assert.deepEqual(
			program.rulesets[4].get(`${table} ${chain}`)?.rules.map((r) => ruleText(r, 4)),
			rules,
		)
	}
}

describe('IPVS program', () => {
	it('of a ClusterIP', () => {
		const program = compile(web({ sessionAffinity: 60 }))
		const [[key, { server, destinations }] = ['', undefined as never]] = [...program.servers]
		assert.equal(key, 'TCP 10.96.0.10 80')
		assert.deepEqual(server, { protocol: 'TCP', ip: '10.96.0.10', port: 80, scheduler: 'rr', persistence: 60 })
		assert.deepEqual(
			destinations.map((d) => `${d.ip}:${d.port} ${d.weight} ${d.forwarding}`),
			['10.244.1.2:8080 1 masquerade', '10.244.1.3:8080 1 masquerade'],
		)
		assert.deepEqual([...program.addresses.keys()], ['10.96.0.10'])
		assert.deepEqual(entries(program), [
			'KUBE-CLUSTER-IP 10.96.0.10,tcp:80',
			'KUBE-IPVS-IPS 10.96.0.10',
			'KUBE-LOOP-BACK 10.244.1.2,tcp:8080,10.244.1.2',
			'KUBE-LOOP-BACK 10.244.1.3,tcp:8080,10.244.1.3',
		])
		assertChains(
			program,
			'nat',
			`-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN
			-A KUBE-SERVICES -m comment --comment "Kubernetes service cluster ip + port for masquerade purpose" -m set --match-set KUBE-CLUSTER-IP dst,dst ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
			-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
			-A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
			-A KUBE-POSTROUTING -m comment --comment "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose" -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE
			-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
			-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
			-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully`,
		)
		assertChains(
			program,
			'filter',
			`-A KUBE-IPVS-FILTER -m set --match-set KUBE-LOAD-BALANCER dst,dst -j RETURN
			-A KUBE-IPVS-FILTER -m set --match-set KUBE-CLUSTER-IP dst,dst -j RETURN
			-A KUBE-IPVS-FILTER -m set --match-set KUBE-EXTERNAL-IP dst,dst -j RETURN
			-A KUBE-IPVS-FILTER -m set --match-set KUBE-EXTERNAL-IP-LOCAL dst,dst -j RETURN
			-A KUBE-IPVS-FILTER -m set --match-set KUBE-HEALTH-CHECK-NODE-PORT dst -j RETURN
			-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT`,
		)
	})

	it('of a load balancer with source ranges, policy Local and a node port', () => {
		const program = compile(
			web(
				{
					type: 'LoadBalancer',
					externalTrafficPolicy: 'Local',
					healthCheckNodePort: 31000,
					loadBalancer: {
						ingress: [{ ip: ip('203.0.113.7'), ipMode: 'VIP' }],
						sourceRanges: ['198.51.100.0/24' as Cidr, '0.0.0.0/0' as Cidr],
						allocateNodePorts: true,
					},
				},
				[at(9, 'node-2')],
				30080,
			),
		)
		assert.deepEqual([...program.servers].map(([key, { destinations }]) => `${key}: ${destinations.length}`).sort(), [
			'TCP 10.96.0.10 80: 1',
			'TCP 172.18.0.2 30080: 1',
			'TCP 203.0.113.7 80: 1',
		])
		assert.deepEqual([...program.addresses.keys()].sort(), ['10.96.0.10', '203.0.113.7'])
		assert.deepEqual(entries(program), [
			'KUBE-CLUSTER-IP 10.96.0.10,tcp:80',
			'KUBE-HEALTH-CHECK-NODE-PORT 31000',
			'KUBE-IPVS-IPS 10.96.0.10',
			'KUBE-IPVS-IPS 203.0.113.7',
			'KUBE-LOAD-BALANCER 203.0.113.7,tcp:80',
			'KUBE-LOAD-BALANCER-FW 203.0.113.7,tcp:80',
			'KUBE-LOAD-BALANCER-LOCAL 203.0.113.7,tcp:80',
			'KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.7,tcp:80,0.0.0.0/1',
			'KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.7,tcp:80,128.0.0.0/1',
			'KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.7,tcp:80,198.51.100.0/24',
			'KUBE-LOAD-BALANCER-SOURCE-IP 203.0.113.7,tcp:80,203.0.113.7',
			'KUBE-NODE-PORT-LOCAL-TCP 30080',
			'KUBE-NODE-PORT-TCP 30080',
			'PODWIRE-NO-LOCAL-OUTSIDE 172.18.0.2,tcp:30080',
			'PODWIRE-NO-LOCAL-OUTSIDE 203.0.113.7,tcp:80',
		])
	})

	it('has names the kernel can hold, no two alike', () => {
		const names = setIds.flatMap((id) => [setName(id, 4), setName(id, 6)])
		assert.equal(new Set(names).size, names.length)
		assert.ok(names.every((name) => name.length <= 31))
	})
})

describe('IPVS changes', () => {
	const ops = (a: IpvsProgram, b: IpvsProgram) =>
		diffPrograms(a, b).map((c) =>
			'destination' in c
				? `${c.op} ${c.destination.ip} ${c.destination.weight}`
				: 'entry' in c
					? `${c.op} ${c.entry}`
					: c.op,
		)

	it('of an endpoint: the one that leaves gets no new connections, and goes when it has none', () => {
		const before = compile(web())
		const after = compile(web({}, [at(2), at(4)]))
		assert.deepEqual(ops(before, after), [
			'add-entry 10.244.1.4,tcp:8080,10.244.1.4',
			'add-destination 10.244.1.4 1',
			'set-destination 10.244.1.3 0',
			'delete-entry 10.244.1.3,tcp:8080,10.244.1.3',
		])
		const key = 'TCP 10.96.0.10 80'
		const draining = (active: number): IpvsProgram => {
			const entry = after.servers.get(key)!
			const left = { ...before.servers.get(key)!.destinations[1]!, weight: 0, active, inactive: 0 }
			return { ...after, servers: after.servers.set(key, { ...entry, destinations: [...entry.destinations, left] }) }
		}
		assert.deepEqual(ops(draining(1), after), [])
		assert.deepEqual(ops(draining(0), after), ['delete-destination 10.244.1.3 0'])
		assert.deepEqual(ops(draining(1), before), [
			'add-entry 10.244.1.3,tcp:8080,10.244.1.3',
			'set-destination 10.244.1.3 1',
			'set-destination 10.244.1.4 0',
			'delete-entry 10.244.1.4,tcp:8080,10.244.1.4',
		])
	})

	it('come in an order that every step can be done in', () => {
		const all = ops(createIpvs().empty, compile(web()))
		const first = (op: string) => all.findIndex((o) => o.startsWith(op))
		assert.ok(first('create-set') < first('add-entry') && first('add-entry') < first('rules'))
		assert.ok(first('create-device') < first('add-address') && first('add-server') < first('add-destination'))
		const back = ops(compile(web()), createIpvs().empty)
		assert.ok(back.indexOf('rules') < back.indexOf('destroy-set') && back.includes('delete-device'))
		// A set and a server take with them what they hold.
		assert.ok(!back.some((op) => op.startsWith('delete-entry') || op.startsWith('delete-destination')))
	})

	it('leave to iptables mode what that has taken over', () => {
		const program = compile(web())
		const canary = { table: 'nat', name: 'KUBE-PROXY-CANARY', rules: [] } as const
		const rulesets = { ...program.rulesets, 4: program.rulesets[4].set('nat KUBE-PROXY-CANARY', canary) }
		const gone = diffPrograms({ ...program, rulesets }, createIpvs().empty).flatMap((c) =>
			c.op === 'rules' && c.change.family === 4 && c.change.op === 'delete' ? [c.change.name] : [],
		)
		assert.ok(gone.includes('KUBE-NODE-PORT') && !gone.includes('KUBE-SERVICES'))
	})

	it('are none between equals, also across a socket', () => {
		const plane = createIpvs()
		const program = plane.compile(sketchModel([web()]), 'node-1')
		assert.deepEqual(plane.diff(program, plane.fromJson(JSON.parse(JSON.stringify(plane.toJson(program))))), [])
	})

	it('of another scheduler: the servers stay and choose otherwise', () => {
		let scheduler: Scheduler = 'rr'
		const plane = createIpvs({ scheduler: () => scheduler })
		const model = sketchModel([web()])
		const before = plane.compile(model, 'node-1')
		assert.equal(plane.compile(model, 'node-1'), before)
		scheduler = 'lc'
		const changes = plane.diff(before, plane.compile(model, 'node-1'))
		assert.deepEqual(
			changes.map((c) => (c.op === 'set-server' ? `${c.op} ${c.server.ip} ${c.server.scheduler}` : c.op)),
			['set-server 10.96.0.10 lc'],
		)
	})
})
