// What pods ask of their node, as elements; a change touches what it concerns; what the rules do to a packet.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { nodeAddress, podIp, sketchModel } from '../../../test/net/services-world.ts'
import type { Ip } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { createFakeKernel } from '../../linux/nft/fake.ts'
import { type NftProgram, sameProgram } from '../../linux/nft/program.ts'
import type { ContainerPort, NetworkModel, Pod } from '../../model/network.ts'
import { objectOrigin } from '../../model/origin.ts'
import { changedPorts } from './flush.ts'
import { createHostports } from './hostports.ts'

const ip = (text: string) => text as Ip

type Asked = Pick<ContainerPort, 'port' | 'hostPort'> & Partial<ContainerPort>

/** Pods pod-0, pod-1, … of node-1 with these ports. */
function model(asked: readonly (readonly Asked[])[], change: (pod: Pod) => Pod = (pod) => pod): NetworkModel {
	const base = sketchModel([], asked.length)
	return {
		...base,
		pods: base.pods.mutate((draft) => {
			for (const [i, list] of asked.entries()) {
				const key = `default/pod-${i}`
				const ports = list.map((port, j): ContainerPort => {
					const origin = objectOrigin('Pod', key, `spec.containers[0].ports[${j}]`, { file: 'pods.yaml', line: 7 + j })
					return { container: 'c', protocol: 'TCP', origin, ...port }
				})
				draft.set(key, change({ ...(draft.get(key) as Pod), ports }))
			}
		}),
	}
}

function elements(program: NftProgram): string[] {
	return [...program.tables]
		.flatMap(([table, { sets }]) =>
			[...sets.values()].flatMap((set) =>
				set.data === undefined
					? []
					: [...set.elements].map(([key, e]) => `${table.split(' ')[0]} ${set.name}: ${key} : ${e.data}`),
			),
		)
		.sort()
}

const plain = [{ port: 80, hostPort: 8080 }]

describe('host ports, compiled', () => {
	const cases: {
		readonly what: string
		readonly model: NetworkModel
		readonly elements: readonly string[]
	}[] = [
		{ what: 'nobody asks: no table', model: model([[{ port: 80 } as Asked]]), elements: [] },
		{
			what: 'both families',
			model: model([plain]),
			elements: [`ip host-ports: tcp . 8080 : ${podIp(0)} . 80`, `ip6 host-ports: tcp . 8080 : ${podIp(0, 6)} . 80`],
		},
		{
			what: 'one address is of one family; 0.0.0.0 is all of IPv4',
			model: model([
				[
					{ port: 53, hostPort: 53, protocol: 'UDP', hostIp: ip('172.18.0.2') },
					{ port: 54, hostPort: 54, protocol: 'SCTP', hostIp: ip('0.0.0.0') },
					{ port: 55, hostPort: 55, hostIp: ip('::') },
				],
			]),
			elements: [
				`ip host-ip-ports: 172.18.0.2 . udp . 53 : ${podIp(0)} . 53`,
				`ip host-ports: sctp . 54 : ${podIp(0)} . 54`,
				`ip6 host-ports: tcp . 55 : ${podIp(0, 6)} . 55`,
			],
		},
		{
			what: 'not for pods of other nodes',
			model: model([plain], (pod) => ({ ...pod, node: 'node-2' })),
			elements: [],
		},
		{
			what: 'not for pods that have ended',
			model: model([plain], (pod) => ({ ...pod, phase: 'Failed' })),
			elements: [],
		},
		{ what: 'not for the host’s network', model: model([plain], (p) => ({ ...p, hostNetwork: true })), elements: [] },
		{
			what: 'ready or not',
			model: model([plain], (pod) => ({ ...pod, ready: false, ips: [podIp(0)] })),
			elements: [`ip host-ports: tcp . 8080 : ${podIp(0)} . 80`],
		},
		{
			what: 'of two the first by name',
			model: model([plain, plain], (pod) => ({ ...pod, ips: [pod.ips[0]!] })),
			elements: [`ip host-ports: tcp . 8080 : ${podIp(0)} . 80`],
		},
		{
			what: 'of two the one that stays',
			model: model([plain, plain], (p) => ({ ...p, ips: [p.ips[0]!], terminating: p.name === 'pod-0' })),
			elements: [`ip host-ports: tcp . 8080 : ${podIp(1)} . 80`],
		},
	]
	for (const one of cases) {
		it(one.what, () => {
			const program = createHostports().compile(one.model, 'node-1')
			assert.deepEqual(elements(program), one.elements)
		})
	}

	it('step by step as at once, through a kernel; what did not change is shared', () => {
		const plane = createHostports()
		const kernel = createFakeKernel()
		let have: NftProgram | undefined
		const steps = [
			model([plain]),
			model([plain, [{ port: 53, hostPort: 53, protocol: 'UDP' }]]),
			model([[{ port: 81, hostPort: 8080 }], [{ port: 53, hostPort: 53, protocol: 'UDP', hostIp: nodeAddress }]]),
			model([[]]),
			model([plain]),
		]
		const lost: string[][] = []
		for (const step of steps) {
			const want = plane.compile(step, 'node-1')
			assert.equal(sameProgram(want, createHostports().compile(step, 'node-1')), true)
			const changes = plane.diff(have, want)
			kernel.apply(changes)
			lost.push(
				changedPorts(changes)
					.map((p) => `${p.family} ${p.at ?? '*'} ${p.number} ${p.lost ?? 'new'}`)
					.sort(),
			)
			assert.deepEqual(plane.diff(kernel.read(), want), [])
			assert.equal(plane.compile({ ...step, services: step.services }, 'node-1'), want)
			have = want
		}
		assert.deepEqual(lost, [
			[],
			['4 * 53 new', '6 * 53 new'],
			[`4 * 53 ${podIp(1)} . 53`, `4 ${nodeAddress} 53 new`, `6 * 53 ${podIp(1, 6)} . 53`],
			[`4 ${nodeAddress} 53 ${podIp(1)} . 53`],
			[],
		])
		const other = model([plain])
		const unrelated = {
			...other,
			pods: other.pods.set('default/other', { ...other.pods.get('default/pod-0')!, ports: [] }),
		}
		assert.equal(
			plane.compile(unrelated, 'node-1').tables.get('ip podwire-hostports'),
			have?.tables.get('ip podwire-hostports'),
		)
	})
})

describe('host ports, evaluated', () => {
	const asked = [[...plain, { port: 53, hostPort: 53, protocol: 'UDP', hostIp: ip('10.9.9.9') } as Asked]]
	const cases: readonly {
		readonly what: string
		readonly hook: Hook
		readonly packet: Partial<Packet>
		readonly after: string
	}[] = [
		{ what: 'from elsewhere', hook: 'prerouting', packet: {}, after: `172.18.0.9:40000 > ${podIp(0)}:80` },
		{
			what: 'from the node',
			hook: 'output',
			packet: { source: nodeAddress },
			after: `${nodeAddress}:40000 > ${podIp(0)}:80`,
		},
		{
			what: 'another port',
			hook: 'prerouting',
			packet: { destinationPort: 81 },
			after: `172.18.0.9:40000 > ${nodeAddress}:81`,
		},
		{
			what: 'another protocol',
			hook: 'prerouting',
			packet: { protocol: 'UDP' },
			after: `172.18.0.9:40000 > ${nodeAddress}:8080`,
		},
		{
			what: 'another node’s address',
			hook: 'prerouting',
			packet: { destination: ip('172.18.0.3') },
			after: '172.18.0.9:40000 > 172.18.0.3:8080',
		},
		{
			what: 'another address of the node than the hostIP',
			hook: 'prerouting',
			packet: { protocol: 'UDP', destinationPort: 53 },
			after: `172.18.0.9:40000 > ${nodeAddress}:53`,
		},
		{
			what: 'localhost',
			hook: 'output',
			packet: { source: ip('127.0.0.1'), destination: ip('127.0.0.1') },
			after: '127.0.0.1:40000 > 127.0.0.1:8080',
		},
		{
			what: 'a pod to itself, on the way out',
			hook: 'postrouting',
			packet: { source: podIp(0), destination: podIp(0), destinationPort: 80 },
			after: `${nodeAddress}:40000 > ${podIp(0)}:80`,
		},
	]
	for (const { what, hook, packet, after } of cases) {
		it(what, () => {
			const plane = createHostports()
			const program = plane.compile(model(asked), 'node-1')
			const whole: Packet = {
				protocol: 'TCP',
				source: ip('172.18.0.9'),
				destination: nodeAddress,
				sourcePort: 40000,
				destinationPort: 8080,
				state: 'new',
				mark: 0,
				...packet,
			}
			const [outcome, ...others] = plane.evaluate(program, whole, hook)
			assert.equal(others.length, 0)
			const p = outcome!.packet
			assert.equal(`${p.source}:${p.sourcePort} > ${p.destination}:${p.destinationPort}`, after)
		})
	}

	it('names the line of the manifest', () => {
		const plane = createHostports()
		const packet: Packet = {
			protocol: 'TCP',
			source: ip('172.18.0.9'),
			destination: nodeAddress,
			sourcePort: 40000,
			destinationPort: 8080,
			state: 'new',
			mark: 0,
		}
		const [outcome] = plane.evaluate(plane.compile(model(asked), 'node-1'), packet, 'prerouting')
		assert.deepEqual(outcome?.rules.at(-1)?.because, [
			objectOrigin('Pod', 'default/pod-0', 'spec.containers[0].ports[0]', { file: 'pods.yaml', line: 7 }),
		])
	})
})
