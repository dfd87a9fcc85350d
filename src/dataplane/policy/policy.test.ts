// What the compiler of policies puts where: groups, shared sets, ranges, comments, pods nobody knows yet, the log.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Cidr, Ip } from '../../base/ip.ts'
import { tableOf } from '../../base/table.ts'
import { printProgram } from '../../linux/nft/print.ts'
import type { NftProgram, NftTable } from '../../linux/nft/program.ts'
import type { AddressOwner, LabelSelector, NetworkModel, Pod, Policy, PolicyRule } from '../../model/network.ts'
import { type ObjectKey, objectOrigin } from '../../model/origin.ts'
import { rangesOf } from './blocks.ts'
import type { LocalPod } from './compile.ts'
import { createPolicy } from './policy.ts'

const ip = (text: string) => text as Ip
const cidr = (text: string) => text as Cidr
const labels = (matchLabels: Record<string, string>): LabelSelector => ({ matchLabels, matchExpressions: [] })

function pod(key: ObjectKey, node: string, address: string, more: Partial<Pod> = {}): Pod {
	const [namespace = '', name = ''] = key.split('/')
	const origin = objectOrigin('Pod', key)
	return {
		key,
		uid: `uid-${name}`,
		namespace,
		name,
		labels: { app: name.replace(/-\d+$/, '') },
		node,
		ips: [ip(address)],
		hostNetwork: false,
		phase: 'Running',
		ready: true,
		terminating: false,
		ports: [],
		dns: { nameservers: [], searches: [], options: [], origin },
		owner: { kind: 'Pod', key },
		origin,
		...more,
	}
}

const at = (key: ObjectKey, field?: string, line = 1) =>
	objectOrigin('NetworkPolicy', key, field, { file: 'p.yaml', line })

function policy(key: ObjectKey, subject: LabelSelector, more: Partial<Policy>): Policy {
	return { key, namespace: key.split('/')[0] ?? '', subject, origin: at(key), ...more }
}

function from(key: ObjectKey, peers: PolicyRule['peers'], ports: PolicyRule['ports'] = []): PolicyRule {
	return { peers, ports, origin: at(key, 'spec.ingress[0]', 7) }
}

const peer = (pods: LabelSelector, namespaces?: LabelSelector): PolicyRule['peers'][number] => ({
	kind: 'pods',
	pods,
	...(namespaces === undefined ? {} : { namespaces }),
	origin: at('shop/x'),
})

function model(pods: readonly Pod[], policies: readonly Policy[]): NetworkModel {
	const owners = pods.flatMap((p) => p.ips.map((each): [Ip, AddressOwner] => [each, { kind: 'pod', pod: p.key }]))
	return {
		config: { clusterDomain: 'cluster.local', podCidrs: [], serviceCidrs: [], mtu: 1500 },
		nodes: tableOf([]),
		pods: tableOf(pods.map((p) => [p.key, p])),
		services: tableOf([]),
		addresses: tableOf(owners),
		frontends: tableOf([]),
		policies: tableOf(policies.map((p) => [p.key, p])),
		tieredPolicies: tableOf([]),
		namespaces: tableOf([]),
		findings: [],
	}
}

const web = [pod('shop/web-1', 'node-1', '10.244.0.5'), pod('shop/web-2', 'node-1', '10.244.0.6')]
const api = pod('shop/api-1', 'node-2', '10.244.1.5')

function tableOfProgram(program: NftProgram, family: 'ip' | 'ip6' = 'ip'): NftTable {
	const table = program.tables.get(`${family} podwire-policy`)
	assert.ok(table, 'no table')
	return table
}

function entries(table: NftTable, set: string): Record<string, string> {
	const found = table.sets.get(set)?.elements ?? []
	return Object.fromEntries([...found].map(([key, { data }]) => [key, data ?? '']).sort())
}

describe('groups and sets', () => {
	const key = 'shop/web'
	const open = policy(key, labels({ app: 'web' }), { ingress: [from(key, [peer(labels({ app: 'api' }))])] })

	it('is not there where no policy selects a pod of the node', () => {
		assert.equal(createPolicy().compile(model([...web, api], [open]), 'node-2').tables.size, 0)
		assert.equal(createPolicy().compile(model([...web, api], []), 'node-1').tables.size, 0)
	})

	it('pods of the same policies share a chain, policies with the same peer a set', () => {
		const second = policy('shop/web-b', labels({ app: 'web' }), {
			ingress: [from('shop/web-b', [peer(labels({ app: 'api' }))], [{ protocol: 'TCP', port: 80, origin: at(key) }])],
		})
		const table = tableOfProgram(createPolicy().compile(model([...web, api], [open, second]), 'node-1'))
		const chains = Object.values(entries(table, 'ingress-pods'))
		assert.equal(chains.length, 2)
		assert.equal(chains[0], chains[1])
		const sets = [...table.sets.keys()].filter((name) => name.startsWith('pods-'))
		assert.equal(sets.length, 1)
		assert.deepEqual(Object.keys(entries(table, sets[0] ?? '')), ['10.244.1.5'])
		assert.deepEqual(Object.keys(entries(table, 'self')), ['10.244.0.5 . 10.244.0.5', '10.244.0.6 . 10.244.0.6'])
	})

	it('a label changes one element, and everything else is the same object', () => {
		const plane = createPolicy()
		const before = model([...web, api], [open])
		const first = plane.compile(before, 'node-1')
		const changed = { ...api, labels: { app: 'other' } }
		const second = plane.compile({ ...before, pods: before.pods.set(api.key, changed) }, 'node-1')
		const changes = plane.diff(first, second)
		assert.deepEqual(
			changes.map((c) => [c.op, 'elements' in c ? c.elements.map(([k]) => k) : []]),
			[['delete-elements', ['10.244.1.5']]],
		)
		assert.equal(tableOfProgram(first).chains, tableOfProgram(second).chains)
		const ready = { ...before, pods: before.pods.set(api.key, { ...api, ready: false }) }
		const plain = createPolicy()
		assert.equal(plain.compile(before, 'node-1'), plain.compile(ready, 'node-1'))
	})

	it('the rules say which line they are from, the end of the chain who isolates', () => {
		const deny = policy('shop/deny', labels({}), { ingress: [] })
		const text = printProgram(createPolicy().compile(model([...web, api], [open, deny]), 'node-1'))
		assert.match(text, /return comment "NetworkPolicy shop\/web spec\.ingress\[0\] p\.yaml:7"/)
		assert.match(text, /drop comment "NetworkPolicy shop\/deny, shop\/web"/)
		assert.match(text, /10\.244\.0\.5 comment "Pod shop\/web-1" : jump ingress-shop-/)
	})
})

describe('pods that are wired', () => {
	const deny = policy('shop/deny', labels({ app: 'web' }), { ingress: [] })
	const wired = (name: string, uid: string): LocalPod => ({ uid, pod: `shop/${name}`, ips: [ip('10.244.0.9')] })
	const compile = (local: LocalPod, pods: readonly Pod[], policies: readonly Policy[]) =>
		createPolicy({ local: () => tableOf([[local.uid, local]]) }).compile(model(pods, policies), 'node-1')

	it('are isolated by their labels before the API knows their address', () => {
		const known = pod('shop/web-9', 'node-1', '', { ips: [], phase: 'Pending' })
		const table = tableOfProgram(compile(wired('web-9', 'uid-web-9'), [known], [deny]))
		assert.match(entries(table, 'ingress-pods')['10.244.0.9'] ?? '', /^jump ingress-shop-[0-9a-f]{12}$/)
		const other = pod('shop/api-9', 'node-1', '', { ips: [], phase: 'Pending' })
		assert.equal(compile(wired('api-9', 'uid-api-9'), [other], [deny]).tables.size, 0)
	})

	it('and that nobody knows are denied where some policy of the namespace could mean them', () => {
		const table = tableOfProgram(compile(wired('new', 'uid-new'), [], [deny]))
		assert.deepEqual(entries(table, 'ingress-pods'), { '10.244.0.9': 'jump ingress-shop-unknown' })
		assert.deepEqual(entries(table, 'egress-pods'), {})
		assert.match(JSON.stringify(table.chains.get('ingress-shop-unknown')?.rules.at(-1)), /"drop".*not known yet/)
		assert.equal(
			compile(wired('new', 'uid-new'), [], [policy('other/deny', labels({}), { ingress: [] })]).tables.size,
			0,
		)
	})

	it('a later pod of the same name is another one', () => {
		const earlier = pod('shop/free', 'node-1', '', { ips: [] })
		const table = tableOfProgram(compile(wired('free', 'uid-later'), [earlier], [deny]))
		assert.deepEqual(entries(table, 'ingress-pods'), { '10.244.0.9': 'jump ingress-shop-unknown' })
	})
})

describe('ranges of networks with exceptions', () => {
	const cases: readonly (readonly [string, readonly (readonly [string, ...string[]])[], readonly string[]])[] = [
		['one', [['10.0.0.0/8']], ['10.0.0.0/8']],
		['a hole', [['10.0.0.0/8', '10.1.0.0/16']], ['10.0.0.0/16', '10.2.0.0-10.255.255.255']],
		['nothing left', [['10.0.0.0/8', '10.0.0.0/8']], []],
		['holes that overlap', [['10.0.0.0/30', '10.0.0.1/32', '10.0.0.0/31']], ['10.0.0.2/31']],
		['a hole elsewhere', [['10.0.0.0/8', '11.0.0.0/8']], ['10.0.0.0/8']],
		['neighbours are joined', [['10.0.0.0/9'], ['10.128.0.0/9']], ['10.0.0.0/8']],
		['one fills the hole of another', [['10.0.0.0/8', '10.1.0.0/16'], ['10.1.0.0/16']], ['10.0.0.0/8']],
		['all but one', [['0.0.0.0/0', '255.255.255.255/32']], ['0.0.0.0-255.255.255.254']],
		['all', [['0.0.0.0/0']], ['0.0.0.0/0']],
		['IPv6', [['fd00::/8', 'fd00::/9']], ['fd80::/9']],
	]
	for (const [what, blocks, expected] of cases) {
		it(what, () => {
			const list = blocks.map(([network, ...except]) => ({ cidr: cidr(network), except: except.map(cidr) }))
			assert.deepEqual(rangesOf(list, blocks[0]?.[0].includes(':') === true ? 6 : 4), expected)
		})
	}
})
