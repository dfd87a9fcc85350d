import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Cidr, Ip } from '../../base/ip.ts'
import type { Packet } from '../../base/packet.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import type { NetworkModel, Node } from '../../model/network.ts'
import { objectOrigin } from '../../model/origin.ts'
import { compileLinks } from './compile.ts'
import { changeText, diffLinks } from './diff.ts'
import { evaluateLinks, routeOf } from './evaluate.ts'
import {
	type Attachment,
	faultsOf,
	type LinksProgram,
	linksFromJson,
	linksToJson,
	podMac,
	type Route,
	routeKey,
	routeText,
	wiringOf,
} from './program.ts'

const ip = (text: string) => text as Ip
const cidr = (text: string) => text as Cidr

// The address plan: node i is 172.18.0.(i+1) and has 10.244.(i-1).0/24.
const node = (i: number, more: Partial<Node> = {}): Node => ({
	name: `node-${i}`,
	addresses: [ip(`172.18.0.${i + 1}`)],
	podCidrs: [cidr(`10.244.${i - 1}.0/24`)],
	ready: true,
	labels: {},
	origin: objectOrigin('Node', `node-${i}`, undefined, { file: 'nodes.yaml', line: i }),
	...more,
})
const modelOf = (nodes: readonly Node[]): NetworkModel => ({
	config: { clusterDomain: 'cluster.local', podCidrs: [cidr('10.244.0.0/16')], serviceCidrs: [], mtu: 1500 },
	nodes: tableOf(nodes.map((n) => [n.name, n])),
	pods: emptyTable(),
	services: emptyTable(),
	addresses: emptyTable(),
	frontends: emptyTable(),
	policies: emptyTable(),
	tieredPolicies: emptyTable(),
	namespaces: emptyTable(),
	findings: [],
})
const attachment = (name: string, address: string, more: Partial<Attachment> = {}): Attachment => ({
	uid: `uid-${name}`,
	pod: `default/${name}`,
	namespace: `/run/pods/${name}`,
	ips: [ip(address)],
	hostInterface: `pw${name}`,
	podInterface: 'eth0',
	mtu: 1500,
	because: [objectOrigin('Pod', `default/${name}`)],
	...more,
})
const podsOf = (...all: readonly Attachment[]): Table<string, Attachment> => tableOf(all.map((a) => [a.uid, a]))
const routesOf = (program: LinksProgram) => [...program.routes.values()].map(routeText).sort()

const three = modelOf([node(1), node(2), node(3)])
const compile = (pods: Table<string, Attachment>, earlier?: LinksProgram, model = three) =>
	compileLinks(model, 'node-1', pods, 'eth0', earlier)

describe('links compile', () => {
	it('routes other nodes’ pods by their node, own pods by their interface, refuses the rest of its network', () => {
		const program = compile(podsOf(attachment('a', '10.244.0.2')))
		assert.deepEqual(routesOf(program), [
			'10.244.0.2 dev pwa',
			'10.244.1.0/24 via 172.18.0.3 dev eth0',
			'10.244.2.0/24 via 172.18.0.4 dev eth0',
			'unreachable 10.244.0.0/24',
		])
		assert.deepEqual(program.routes.get(routeKey(cidr('10.244.2.0/24')))?.because, [
			objectOrigin('Node', 'node-3', 'spec.podCIDR', { file: 'nodes.yaml', line: 3 }),
		])
		assert.deepEqual(program.routes.get(routeKey(cidr('10.244.0.2/32')))?.because, [objectOrigin('Pod', 'default/a')])
		assert.equal(program.sysctls.get('net.ipv4.ip_forward'), '1')
	})

	it('leaves out a node without an address of the family', () => {
		const model = modelOf([
			node(1),
			node(2, { addresses: [] }),
			node(3, { podCidrs: [cidr('10.244.2.0/24'), cidr('fd00:3::/64')] }),
		])
		assert.deepEqual(routesOf(compile(emptyTable(), undefined, model)), [
			'10.244.2.0/24 via 172.18.0.4 dev eth0',
			'unreachable 10.244.0.0/24',
		])
	})

	it('keeps what did not change by identity, gives an address from one pod to the next', () => {
		const a = attachment('a', '10.244.0.2')
		const b = attachment('b', '10.244.0.3')
		const before = compile(podsOf(a, b))
		const again = compile(podsOf(a, b), before)
		assert.equal(again.routes, before.routes)
		const heir = attachment('heir', '10.244.0.2')
		const after = compile(podsOf(b, heir), before)
		assert.equal(after.routes.get(routeKey(cidr('10.244.0.2/32')))?.device, 'pwheir')
		for (const key of ['10.244.0.3/32', '10.244.1.0/24']) {
			assert.equal(after.routes.get(routeKey(cidr(key))), before.routes.get(routeKey(cidr(key))))
		}
		const smaller = compile(podsOf(b), after, modelOf([node(1), node(3)]))
		assert.deepEqual(routesOf(smaller), [
			'10.244.0.3 dev pwb',
			'10.244.2.0/24 via 172.18.0.4 dev eth0',
			'unreachable 10.244.0.0/24',
		])
	})

	it('law: from an earlier result or from nothing, the program is the same', () => {
		const pods = fc
			.uniqueArray(fc.record({ name: fc.integer({ min: 0, max: 9 }), last: fc.integer({ min: 2, max: 12 }) }), {
				selector: (p) => p.name,
				maxLength: 8,
			})
			.map((all) => all.filter((p, i) => all.findIndex((o) => o.last === p.last) === i))
			.map((all) => podsOf(...all.map((p) => attachment(`p${p.name}`, `10.244.0.${p.last}`))))
		const nodes = fc.subarray([2, 3, 4]).map((others) => modelOf([1, ...others].map((i) => node(i))))
		fc.assert(
			fc.property(pods, nodes, pods, nodes, (pods1, model1, pods2, model2) => {
				const fresh = compile(pods2, undefined, model2)
				const stepped = compile(pods2, compile(pods1, undefined, model1), model2)
				assert.deepEqual(linksToJson(stepped), linksToJson(fresh))
			}),
		)
	})

	it('makes the pod’s MAC from its address', () => {
		assert.equal(podMac([ip('10.244.0.2')]), '0a:58:0a:f4:00:02')
		assert.equal(podMac([ip('fd00::a:b')]), '0a:58:00:0a:00:0b')
	})

	it('wires IPv6 and IPv4 side by side', () => {
		const pod = wiringOf(attachment('a', '10.244.0.2', { ips: [ip('10.244.0.2'), ip('fd00::2')] })).pod!
		assert.deepEqual(pod.routes.map(routeText), [
			'169.254.1.1 dev eth0',
			'default via 169.254.1.1 dev eth0',
			'default via fe80::ecee:eeff:feee:eeee dev eth0',
		])
		assert.deepEqual(
			pod.neighbours.map((n) => n.ip),
			['169.254.1.1', 'fe80::ecee:eeff:feee:eeee'],
		)
	})
})

/** What a node would have after the changes. */
function applied(have: LinksProgram | undefined, changes: ReturnType<typeof diffLinks>): LinksProgram {
	const attachments = new Map(have?.attachments)
	const routes = new Map(have?.routes)
	const sysctls = new Map(have?.sysctls)
	for (const change of changes) {
		switch (change.change) {
			case 'attach':
				attachments.set(change.attachment.uid, change.attachment)
				break
			case 'detach':
				attachments.delete(change.attachment.uid)
				break
			case 'route':
				routes.set(routeKey(change.route.destination), change.route)
				break
			case 'unroute':
				routes.delete(routeKey(change.route.destination))
				break
			case 'sysctl':
				sysctls.set(change.name, change.value)
				break
			default:
				change satisfies never
		}
	}
	return { attachments: tableOf(attachments), routes: tableOf(routes), sysctls: tableOf(sysctls) }
}

/** A program as the kernel would show it. */
const read = (program: LinksProgram): LinksProgram => ({
	...program,
	attachments: tableOf([...program.attachments].map(([uid, a]) => [uid, { ...a, found: wiringOf(a) }])),
})

describe('links diff', () => {
	it('is empty between equals, compiled or read', () => {
		const program = compile(podsOf(attachment('a', '10.244.0.2')))
		assert.deepEqual(diffLinks(program, program), [])
		assert.deepEqual(diffLinks(read(program), program), [])
		assert.deepEqual(diffLinks(compile(podsOf(attachment('a', '10.244.0.2'))), program), [])
	})

	it('says what is wrong with what was read', () => {
		const a = attachment('a', '10.244.0.2')
		const meant = wiringOf(a)
		const faults = (found: Attachment['found']) => faultsOf({ ...a, found: found! }, a)
		assert.deepEqual(faults(meant), [])
		assert.deepEqual(faults({ host: undefined, pod: undefined }), [
			'interface "pwa" is missing',
			'interface "eth0" is missing',
		])
		assert.deepEqual(faults({ ...meant, host: { ...meant.host!, up: false, mtu: 9000 } }), [
			'interface "pwa" is down',
			'MTU of interface "pwa" is 9000, not 1500',
		])
		assert.deepEqual(
			faults({ ...meant, pod: { ...meant.pod!, ips: [ip('10.244.0.9')], routes: meant.pod!.routes.slice(0, 1) } }),
			[
				'address "10.244.0.2" is missing',
				'address "10.244.0.9" is too much',
				'route "default via 169.254.1.1 dev eth0" is missing',
			],
		)
	})

	it('takes a pod from its old namespace to the new one', () => {
		const a = attachment('a', '10.244.0.2')
		const moved = { ...a, namespace: '/run/pods/elsewhere' }
		assert.deepEqual(diffLinks(compile(podsOf(a)), compile(podsOf(moved))).map(changeText), [
			'detach pod "default/a"',
			'attach pod "default/a"',
		])
	})

	it('law: the difference applied to the one gives the other', () => {
		const pod = fc.record({
			name: fc.integer({ min: 0, max: 5 }),
			last: fc.integer({ min: 2, max: 200 }),
			mtu: fc.constantFrom(1400, 1500),
		})
		const program = fc
			.tuple(fc.uniqueArray(pod, { selector: (p) => p.name, maxLength: 6 }), fc.subarray([2, 3, 4]))
			.map(([pods, nodes]) =>
				compile(
					podsOf(...pods.map((p) => attachment(`p${p.name}`, `10.244.0.${p.last}`, { mtu: p.mtu }))),
					undefined,
					modelOf([1, ...nodes].map((i) => node(i))),
				),
			)
		fc.assert(
			fc.property(program, program, (a, b) => {
				assert.deepEqual(linksToJson(applied(a, diffLinks(a, b))), linksToJson(b))
				assert.deepEqual(linksToJson(applied(undefined, diffLinks(undefined, b))), linksToJson(b))
				assert.deepEqual(linksToJson(linksFromJson(JSON.parse(JSON.stringify(linksToJson(a))))), linksToJson(a))
			}),
		)
	})
})

describe('links evaluate', () => {
	const a = attachment('a', '10.244.0.2')
	const bare = compile(podsOf(a))
	const foreign: Route[] = [
		{ destination: cidr('172.18.0.0/16'), device: 'eth0', because: [] },
		{ destination: cidr('0.0.0.0/0'), via: ip('172.18.0.1'), device: 'eth0', because: [] },
		{ destination: cidr('10.244.1.128/25'), via: ip('172.18.0.9'), device: 'eth0', because: [] },
	]
	const program: LinksProgram = {
		...bare,
		surroundings: { addresses: [ip('172.18.0.2')], routes: foreign, mtus: { eth0: 1450 } },
	}
	const cases: readonly (readonly [string, string, string])[] = [
		['10.244.0.2', 'forward', '10.244.0.2 dev pwa'],
		['10.244.0.3', 'unreachable', 'unreachable 10.244.0.0/24'],
		['10.244.1.5', 'forward', '10.244.1.0/24 via 172.18.0.3 dev eth0'],
		['10.244.1.200', 'forward', '10.244.1.128/25 via 172.18.0.9 dev eth0'],
		['172.18.0.2', 'local', 'local 172.18.0.2 dev lo'],
		['172.18.0.3', 'forward', '172.18.0.0/16 dev eth0'],
		['127.0.0.1', 'local', 'local 127.0.0.1 dev lo'],
		['8.8.8.8', 'forward', 'default via 172.18.0.1 dev eth0'],
	]
	for (const [to, kind, text] of cases) {
		it(`takes ${to} by ${text}`, () => {
			const decision = routeOf(program, ip(to), 'node')
			assert.equal(decision?.kind, kind)
			assert.equal(decision?.text, text)
		})
	}

	it('knows the MTU and the pod of a device', () => {
		assert.equal(routeOf(program, ip('10.244.1.5'), 'node')?.mtu, 1450)
		assert.equal(routeOf(program, ip('10.244.0.2'), 'node')?.mtu, 1500)
		assert.equal(routeOf(program, ip('10.244.0.2'), 'node')?.attachment, a)
	})

	it('finds nothing where nothing leads', () => {
		assert.equal(routeOf(bare, ip('8.8.8.8'), 'node'), undefined)
		assert.equal(routeOf(bare, ip('fd00::1'), 'node'), undefined)
		assert.equal(routeOf(bare, ip('10.244.0.2'), { uid: 'nobody' }), undefined)
	})

	it('routes in the pod by what was found there', () => {
		const from = { uid: a.uid }
		assert.equal(routeOf(bare, ip('8.8.8.8'), from)?.text, 'default via 169.254.1.1 dev eth0')
		assert.equal(routeOf(bare, ip('8.8.8.8'), from)?.mtu, 1500)
		assert.equal(routeOf(bare, ip('10.244.0.2'), from)?.kind, 'local')
		const found = wiringOf(a)
		const broken = (pod: Attachment['found']) => ({ ...bare, attachments: podsOf({ ...a, found: pod! }) })
		assert.equal(routeOf(broken({ ...found, pod: { ...found.pod!, routes: [] } }), ip('8.8.8.8'), from), undefined)
		assert.equal(routeOf(broken({ ...found, pod: { ...found.pod!, up: false } }), ip('8.8.8.8'), from), undefined)
		assert.equal(routeOf(broken({ ...found, pod: undefined }), ip('10.244.0.2'), from), undefined)
	})

	it('decides for packets that come in or are made here, with the route as the rule', () => {
		const packet: Packet = {
			protocol: 'TCP',
			source: ip('10.244.1.5'),
			destination: ip('10.244.0.2'),
			sourcePort: 1,
			destinationPort: 2,
			state: 'new',
			mark: 0,
		}
		const [forward] = evaluateLinks(program, packet, 'prerouting')
		assert.equal(forward?.verdict, 'accept')
		assert.equal(forward?.packet.outInterface, 'pwa')
		assert.deepEqual(forward?.rules[0]?.because, [objectOrigin('Pod', 'default/a')])
		assert.equal(evaluateLinks(program, { ...packet, destination: ip('10.244.0.9') }, 'output')[0]?.verdict, 'reject')
		assert.equal(
			evaluateLinks(bare, { ...packet, destination: ip('9.9.9.9') }, 'output')[0]?.rules[0]?.text,
			'no route to 9.9.9.9',
		)
		assert.deepEqual(evaluateLinks(program, packet, 'forward'), [{ verdict: 'accept', packet, rules: [], chance: 1 }])
	})
})
