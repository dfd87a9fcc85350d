// What is written for known Services, side by side with what kube-proxy's iptables mode writes for them (its own
// spelling: options in its order, --or-mark, ten digits of probability).

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { sketchModel, sketchService } from '../../../test/net/services-world.ts'
import type { Cidr, Ip } from '../../base/ip.ts'
import type { Packet } from '../../base/packet.ts'
import { parseRule } from '../../linux/iptables/parse.ts'
import type { TableName } from '../../linux/iptables/program.ts'
import { renderRule, ruleText } from '../../linux/iptables/render.ts'
import type { NetworkModel, Service } from '../../model/network.ts'
import { createIptables } from './iptables.ts'
import { endpointChain, isOwnChain, namesOf, titleIn } from './names.ts'
import type { IptablesProgram } from './program.ts'

const ip = (text: string) => text as Ip

describe('names', () => {
	it('are those of every cluster that runs kube-proxy', () => {
		const known: [string, string, 'TCP' | 'UDP', string][] = [
			['default/kubernetes', 'https', 'TCP', 'KUBE-SVC-NPX46M4PTMTKRN6Y'],
			['kube-system/kube-dns', 'dns', 'UDP', 'KUBE-SVC-TCOU7JCQXEZGVUNU'],
			['kube-system/kube-dns', 'dns-tcp', 'TCP', 'KUBE-SVC-ERIFXISQEP7F7OF4'],
		]
		for (const [service, port, protocol, chain] of known) assert.equal(namesOf(service, port, protocol).cluster, chain)
		assert.equal(endpointChain('ns1/svc1:p80', 'TCP', '10.180.0.1:80'), 'KUBE-SEP-SXIVWICOYRO3J4NJ')
		assert.equal(namesOf('ns2/svc2', 'p80', 'TCP').external, 'KUBE-EXT-GNZBNJ2PO5MGZ6GT')
	})

	it('of the kubelet and of others are not ours', () => {
		for (const name of ['KUBE-FIREWALL', 'KUBE-KUBELET-CANARY', 'DOCKER', 'KUBE-SVC-SHORT'])
			assert.ok(!isOwnChain(name))
		for (const name of ['KUBE-SERVICES', 'KUBE-SEP-SXIVWICOYRO3J4NJ']) assert.ok(isOwnChain(name))
	})

	it('are found in comments', () => {
		assert.equal(titleIn('default/web:http cluster IP'), 'default/web:http')
		assert.equal(titleIn('default/web -> 10.0.0.1:80'), 'default/web')
		assert.equal(titleIn('masquerade traffic for a/b:c external destinations'), 'a/b:c')
		assert.equal(titleIn('kubernetes service portals'), undefined)
	})
})

function compile(model: NetworkModel): IptablesProgram {
	return createIptables({ exact: true }).compile(model, 'node-1')
}

/** The rules of a chain, each as iptables-save prints it. */
function rulesOf(program: IptablesProgram, table: TableName, chain: string, family: 4 | 6 = 4): string[] | undefined {
	return program.rulesets[family].get(`${table} ${chain}`)?.rules.map((r) => renderRule(chain, r, { family }))
}

/** kube-proxy's spelling: lines `-A CHAIN …`; every chain they name must hold exactly them. */
function assertChains(program: IptablesProgram, table: TableName, text: string, family: 4 | 6 = 4): void {
	const expected = new Map<string, string[]>()
	for (const line of text.trim().split('\n')) {
		const [, chain = '', rest = ''] = /^\s*-A (\S+) ?(.*)$/.exec(line) ?? []
		const rule = ruleText(parseRule(rest, family), family)
		expected.set(chain, [...(expected.get(chain) ?? []), `-A ${chain} ${rule}`])
	}
	for (const [chain, rules] of expected) assert.deepEqual(rulesOf(program, table, chain, family), rules)
}

const at = (i: number, node = 'node-1') => ({ ip: ip(`10.244.1.${i}`), port: 8080, node })
function web(more: Partial<Service> = {}, endpoints = [at(2), at(3)], nodePort?: number): Service {
	const service = sketchService({ name: 'web', ips: ['10.96.0.10'], ports: [{ port: 80, endpoints }], more })
	return nodePort === undefined ? service : { ...service, ports: service.ports.map((port) => ({ ...port, nodePort })) }
}
const id = namesOf('default/web', 'p0', 'TCP').cluster.slice('KUBE-SVC-'.length)
const sep = (i: number) => endpointChain('default/web:p0', 'TCP', `10.244.1.${i}:8080`)

describe('iptables program', () => {
	it('has the chains that are always there', () => {
		const program = compile(sketchModel([]))
		assertChains(
			program,
			'nat',
			`-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
			-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
			-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
			-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
			-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
			-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
			-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
			-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -d 172.18.0.2 -j KUBE-NODEPORTS`,
		)
		assertChains(
			program,
			'filter',
			`-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
			-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
			-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
			-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
			-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
			-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
			-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
			-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
			-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
			-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
			-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
			-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
		)
	})

	it('of a ClusterIP', () => {
		assertChains(
			compile(sketchModel([web()])),
			'nat',
			`-A KUBE-SERVICES -m comment --comment "default/web:p0 cluster IP" -m tcp -p tcp -d 10.96.0.10 --dport 80 -j KUBE-SVC-${id}
			-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -d 172.18.0.2 -j KUBE-NODEPORTS
			-A KUBE-SVC-${id} -m comment --comment "default/web:p0 cluster IP" -m tcp -p tcp -d 10.96.0.10 --dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
			-A KUBE-SVC-${id} -m comment --comment "default/web:p0 -> 10.244.1.2:8080" -m statistic --mode random --probability 0.5000000000 -j ${sep(2)}
			-A KUBE-SVC-${id} -m comment --comment "default/web:p0 -> 10.244.1.3:8080" -j ${sep(3)}
			-A ${sep(2)} -m comment --comment default/web:p0 -s 10.244.1.2 -j KUBE-MARK-MASQ
			-A ${sep(2)} -m comment --comment default/web:p0 -m tcp -p tcp -j DNAT --to-destination 10.244.1.2:8080
			-A ${sep(3)} -m comment --comment default/web:p0 -s 10.244.1.3 -j KUBE-MARK-MASQ
			-A ${sep(3)} -m comment --comment default/web:p0 -m tcp -p tcp -j DNAT --to-destination 10.244.1.3:8080`,
		)
	})

	it('of three endpoints with session affinity', () => {
		assertChains(
			compile(sketchModel([web({ sessionAffinity: 10800 }, [at(2), at(3), at(4)])])),
			'nat',
			`-A KUBE-SVC-${id} -m comment --comment "default/web:p0 cluster IP" -m tcp -p tcp -d 10.96.0.10 --dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
			${[2, 3, 4].map((i) => `-A KUBE-SVC-${id} -m comment --comment "default/web:p0 -> 10.244.1.${i}:8080" -m recent --name ${sep(i)} --rcheck --seconds 10800 --reap -j ${sep(i)}`).join('\n')}
			-A KUBE-SVC-${id} -m comment --comment "default/web:p0 -> 10.244.1.2:8080" -m statistic --mode random --probability 0.3333333333 -j ${sep(2)}
			-A KUBE-SVC-${id} -m comment --comment "default/web:p0 -> 10.244.1.3:8080" -m statistic --mode random --probability 0.5000000000 -j ${sep(3)}
			-A KUBE-SVC-${id} -m comment --comment "default/web:p0 -> 10.244.1.4:8080" -j ${sep(4)}
			-A ${sep(2)} -m comment --comment default/web:p0 -s 10.244.1.2 -j KUBE-MARK-MASQ
			-A ${sep(2)} -m comment --comment default/web:p0 -m recent --name ${sep(2)} --set -m tcp -p tcp -j DNAT --to-destination 10.244.1.2:8080`,
		)
	})

	it('of a Service that nobody serves', () => {
		const program = compile(sketchModel([web({ type: 'NodePort', externalIps: [ip('192.0.2.1')] }, [], 30080)]))
		assertChains(
			program,
			'filter',
			`-A KUBE-SERVICES -m comment --comment "default/web:p0 has no endpoints" -m tcp -p tcp -d 10.96.0.10 --dport 80 -j REJECT
			-A KUBE-EXTERNAL-SERVICES -m comment --comment "default/web:p0 has no endpoints" -m tcp -p tcp -d 192.0.2.1 --dport 80 -j REJECT
			-A KUBE-EXTERNAL-SERVICES -m comment --comment "default/web:p0 has no endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30080 -j REJECT`,
		)
		assert.equal(rulesOf(program, 'nat', 'KUBE-SERVICES')?.length, 1)
		assert.equal(rulesOf(program, 'nat', `KUBE-SVC-${id}`), undefined)
	})

	it('of a load balancer with source ranges and policy Local', () => {
		const service = web(
			{
				type: 'LoadBalancer',
				externalTrafficPolicy: 'Local',
				healthCheckNodePort: 31000,
				loadBalancer: {
					ingress: [{ ip: ip('203.0.113.7'), ipMode: 'VIP' }],
					sourceRanges: ['198.51.100.0/24' as Cidr, '172.18.0.0/16' as Cidr],
					allocateNodePorts: true,
				},
			},
			[at(2), { ip: ip('10.244.2.2'), port: 8080, node: 'node-2' }],
			30080,
		)
		const program = compile(sketchModel([service]))
		const far = endpointChain('default/web:p0', 'TCP', '10.244.2.2:8080')
		assertChains(
			program,
			'nat',
			`-A KUBE-SERVICES -m comment --comment "default/web:p0 cluster IP" -m tcp -p tcp -d 10.96.0.10 --dport 80 -j KUBE-SVC-${id}
			-A KUBE-SERVICES -m comment --comment "default/web:p0 loadbalancer IP" -m tcp -p tcp -d 203.0.113.7 --dport 80 -j KUBE-FW-${id}
			-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -d 172.18.0.2 -j KUBE-NODEPORTS
			-A KUBE-NODEPORTS -m comment --comment default/web:p0 -m tcp -p tcp --dport 30080 -j KUBE-EXT-${id}
			-A KUBE-FW-${id} -m comment --comment "default/web:p0 loadbalancer IP" -s 198.51.100.0/24 -j KUBE-EXT-${id}
			-A KUBE-FW-${id} -m comment --comment "default/web:p0 loadbalancer IP" -s 172.18.0.0/16 -j KUBE-EXT-${id}
			-A KUBE-FW-${id} -m comment --comment "default/web:p0 loadbalancer IP" -s 203.0.113.7 -j KUBE-EXT-${id}
			-A KUBE-FW-${id} -m comment --comment "other traffic to default/web:p0 will be dropped by KUBE-PROXY-FIREWALL"
			-A KUBE-EXT-${id} -m comment --comment "pod traffic for default/web:p0 external destinations" -s 10.244.0.0/16 -j KUBE-SVC-${id}
			-A KUBE-EXT-${id} -m comment --comment "masquerade LOCAL traffic for default/web:p0 external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
			-A KUBE-EXT-${id} -m comment --comment "route LOCAL traffic for default/web:p0 external destinations" -m addrtype --src-type LOCAL -j KUBE-SVC-${id}
			-A KUBE-EXT-${id} -j KUBE-SVL-${id}
			-A KUBE-SVL-${id} -m comment --comment "default/web:p0 -> 10.244.1.2:8080" -j ${sep(2)}
			-A ${far} -m comment --comment default/web:p0 -s 10.244.2.2 -j KUBE-MARK-MASQ
			-A ${far} -m comment --comment default/web:p0 -m tcp -p tcp -j DNAT --to-destination 10.244.2.2:8080`,
		)
		assertChains(
			program,
			'filter',
			`-A KUBE-PROXY-FIREWALL -m comment --comment "default/web:p0 traffic not accepted by KUBE-FW-${id}" -m tcp -p tcp -d 203.0.113.7 --dport 80 -j DROP
			-A KUBE-NODEPORTS -m comment --comment "default/web:p0 health check node port" -m tcp -p tcp --dport 31000 -j ACCEPT`,
		)
	})

	it('drops from outside where policy Local finds nobody here', () => {
		const service = web({ type: 'NodePort', externalTrafficPolicy: 'Local' }, [at(9, 'node-2')], 30080)
		const program = compile(sketchModel([service]))
		assertChains(
			program,
			'filter',
			`-A KUBE-EXTERNAL-SERVICES -m comment --comment "default/web:p0 has no local endpoints" -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30080 -j DROP`,
		)
		assert.equal(rulesOf(program, 'nat', `KUBE-EXT-${id}`)?.length, 3)
	})

	it('of both families', () => {
		const service = sketchService({
			name: 'web',
			ips: ['10.96.0.10', 'fd00:10:96::10'],
			ports: [{ port: 80, endpoints: [at(2), { ip: ip('fd00:10:244:1::2'), port: 8080 }] }],
		})
		const six = endpointChain('default/web:p0', 'TCP', '[fd00:10:244:1::2]:8080')
		assertChains(
			compile(sketchModel([service])),
			'nat',
			`-A KUBE-SVC-${id} -m comment --comment "default/web:p0 cluster IP" -m tcp -p tcp -d fd00:10:96::10 --dport 80 ! -s fd00:10:244::/48 -j KUBE-MARK-MASQ
			-A KUBE-SVC-${id} -m comment --comment "default/web:p0 -> [fd00:10:244:1::2]:8080" -j ${six}
			-A ${six} -m comment --comment default/web:p0 -s fd00:10:244:1::2 -j KUBE-MARK-MASQ
			-A ${six} -m comment --comment default/web:p0 -m tcp -p tcp -j DNAT --to-destination [fd00:10:244:1::2]:8080`,
			6,
		)
	})

	it('refuses what kube-proxy forgets to, in chains of ours', () => {
		const stray = sketchService({ name: 'stray', ips: ['10.111.0.1'], ports: [{ port: 80, endpoints: [] }] })
		const program = createIptables().compile(sketchModel([web(), stray]), 'node-1')
		assertChains(
			program,
			'filter',
			`-A PODWIRE-UNSERVED -m comment --comment "default/stray has no such port" -d 10.111.0.1 -j REJECT
			-A PODWIRE-UNSERVED -d 10.96.0.0/16 -j PODWIRE-CLUSTER-IPS
			-A PODWIRE-CLUSTER-IPS -m comment --comment "default/web has no such port" -d 10.96.0.10 -j REJECT
			-A PODWIRE-CLUSTER-IPS -m comment --comment "podwire: address of no Service" -j DROP
			-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
			-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
			-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "podwire: Services without endpoints" -j KUBE-EXTERNAL-SERVICES
			-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "podwire: Services without such a port" -j PODWIRE-UNSERVED`,
		)
		const exact = compile(sketchModel([web(), stray]))
		assert.deepEqual(
			[...exact.rulesets[4].keys()].filter((key) => key.includes('PODWIRE')),
			[],
		)
	})

	it('is of nobody else where two claim an address', () => {
		const other = { ...web(), key: 'default/zeb', name: 'zeb' }
		const program = compile(sketchModel([web(), other]))
		// The sketch gives an address to the last that names it.
		assert.deepEqual(
			rulesOf(program, 'nat', 'KUBE-SERVICES')?.map((r) => /default\/\w+/.exec(r)?.[0]),
			['default/zeb', undefined],
		)
	})
})

describe('iptables compile', () => {
	it('changes only the chains of what changed', () => {
		const plane = createIptables()
		const other = sketchService({ name: 'other', ips: ['10.96.0.11'], ports: [{ port: 80, endpoints: [at(7)] }] })
		const before = plane.compile(sketchModel([web(), other]), 'node-1')
		const model = sketchModel([web({}, [at(2), at(4)]), other])
		const after = plane.compile({ ...model, config: sketchModel([]).config }, 'node-1')
		const changes = plane
			.diff(before, after)
			.map((c) => `${c.op} ${c.op === 'write' ? c.chain.name : 'name' in c ? c.name : ''}`)
		assert.deepEqual(changes.sort(), [`delete ${sep(3)}`, `write KUBE-SVC-${id}`, `write ${sep(4)}`].sort())
		assert.deepEqual(plane.diff(after, after), [])
		assert.equal(
			JSON.stringify(plane.toJson(after)).length,
			JSON.stringify(createIptables().toJson(createIptables().compile(model, 'node-1'))).length,
		)
	})

	it('takes everything away again', () => {
		const plane = createIptables()
		const program = plane.compile(sketchModel([web()]), 'node-1')
		const ops = plane.diff(program, plane.empty).map((c) => c.op)
		assert.deepEqual([...new Set(ops)].sort(), ['delete', 'remove'])
	})

	it('leaves to IPVS mode what that has taken over', () => {
		const plane = createIptables()
		const program = plane.compile(sketchModel([web()]), 'node-1')
		const filter = { table: 'filter', name: 'KUBE-IPVS-FILTER', rules: [] } as const
		const both = {
			...program,
			rulesets: { ...program.rulesets, 4: program.rulesets[4].set('filter KUBE-IPVS-FILTER', filter) },
		}
		const changes = plane.diff(both, plane.empty).filter((c) => c.family === 4)
		const gone = changes.flatMap((c) => (c.op === 'delete' ? [c.name] : []))
		assert.ok(gone.includes(sep(2)) && gone.includes('KUBE-NODEPORTS') && !gone.includes('KUBE-SERVICES'))
		const jumps = changes.flatMap((c) => (c.op === 'remove' ? [ruleText(c.rule, 4)] : []))
		assert.ok(jumps.some((j) => j.endsWith('-j KUBE-NODEPORTS')) && !jumps.some((j) => j.endsWith('-j KUBE-SERVICES')))
	})

	it('crosses a socket', () => {
		const plane = createIptables()
		const program = plane.compile(sketchModel([web()]), 'node-1')
		const again = plane.fromJson(JSON.parse(JSON.stringify(plane.toJson(program))))
		assert.deepEqual(plane.diff(program, again), [])
		assert.deepEqual(plane.toJson(again), plane.toJson(program))
	})
})

describe('iptables evaluate', () => {
	const packet: Packet = {
		protocol: 'TCP',
		source: ip('10.244.1.9'),
		sourcePort: 40000,
		destination: ip('10.96.0.10'),
		destinationPort: 80,
		state: 'new',
		mark: 0,
	}

	it('names the port of the Service and its line', () => {
		const plane = createIptables()
		const [one, two] = plane.evaluate(plane.compile(sketchModel([web()]), 'node-1'), packet, 'prerouting')
		assert.deepEqual([one?.packet.destination, two?.packet.destination], ['10.244.1.2', '10.244.1.3'])
		assert.deepEqual([one?.chance, two?.chance], [0.5, 0.5])
		assert.deepEqual(
			one?.rules.map((r) => [r.chain, r.because]),
			[
				['PREROUTING', [{ default: 'kubernetes service portals' }]],
				['KUBE-SERVICES', [web().ports[0]?.origin]],
				[`KUBE-SVC-${id}`, [web().ports[0]?.origin]],
				[sep(2), [web().ports[0]?.origin]],
			],
		)
	})

	it('marks a pod that reaches itself, and masquerades it', () => {
		const plane = createIptables()
		const program = plane.compile(sketchModel([web({}, [at(2)])]), 'node-1')
		const [there] = plane.evaluate(program, { ...packet, source: ip('10.244.1.2') }, 'prerouting')
		const [out] = plane.evaluate(program, there!.packet, 'postrouting')
		assert.equal(out?.packet.source, '172.18.0.2')
		assert.equal(out?.packet.mark, 0)
	})
})
