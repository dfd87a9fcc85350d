// Services by iptables on a real kernel: the shared suite, and what is written and read back by either iptables.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { Cidr, Ip } from '../../src/base/ip.ts'
import { createIptables, type IptablesDataplane, iptablesUsable } from '../../src/dataplane/iptables/iptables.ts'
import type { IptablesProgram } from '../../src/dataplane/iptables/program.ts'
import { createNetns, deleteNetns, inNetnsAt } from '../../src/linux/netns.ts'
import { runServicesSuite } from './services-suite.ts'
import { podIp, reasonToSkip, sketchModel, sketchService } from './services-world.ts'

const unusable = reasonToSkip() || ((await iptablesUsable()) ?? false)

runServicesSuite('iptables', {
	make: async (options) => [createIptables(options)],
	skip: (name) =>
		name === 'leaves marks and tables of others alone'
			? 'kube-proxy marks what is to be masqueraded with bit 0x4000 of the packet mark (the other bits stay)'
			: undefined,
	unusable,
})

const nodeModel = (endpoints: readonly number[]) =>
	sketchModel(
		[
			{
				...sketchService({
					name: 'web',
					ips: ['10.96.0.1', 'fd00:10:96::1'],
					ports: [
						{
							port: 80,
							endpoints: endpoints.flatMap((i) => [
								{ ip: podIp(i), port: 8080, node: 'node-1' },
								{ ip: podIp(i, 6), port: 8080, node: 'node-1' },
							]),
						},
					],
					more: {
						type: 'LoadBalancer',
						externalTrafficPolicy: 'Local',
						sessionAffinity: 60,
						healthCheckNodePort: 31000,
						loadBalancer: {
							ingress: [{ ip: '203.0.113.7' as Ip, ipMode: 'VIP' }],
							sourceRanges: ['198.51.100.0/24' as Cidr],
							allocateNodePorts: true,
						},
					},
				}),
			},
			sketchService({ name: 'empty', ips: ['10.96.0.2'], ports: [{ port: 53, protocol: 'UDP', endpoints: [] }] }),
		],
		3,
	)

async function withNetns(test: (path: string) => Promise<void>): Promise<void> {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-iptables-'))
	const path = join(folder, 'node')
	createNetns(path)
	try {
		await test(path)
	} finally {
		deleteNetns(path)
		rmSync(folder, { recursive: true, force: true })
	}
}

async function bring(plane: IptablesDataplane, want: IptablesProgram): Promise<number> {
	const changes = plane.diff(await plane.read(), want)
	const outcome = await plane.apply(changes)
	if (!outcome.ok) throw outcome.error
	return changes.length
}

for (const variant of ['nft', 'legacy'] as const) {
	const skip = reasonToSkip() || ((await iptablesUsable(variant)) ?? false)
	describe(`iptables-${variant} in the kernel`, { skip }, () => {
		it('is read back as it was written, changes in place, and leaves nothing behind', async () => {
			await withNetns(async (netns) => {
				const plane = createIptables({ netns, variant })
				const first = plane.compile(nodeModel([0, 1, 2]), 'node-1')
				assert.ok((await bring(plane, first)) > 0)
				assert.deepEqual(plane.diff(await plane.read(), first), [])
				const second = plane.compile(nodeModel([0, 2]), 'node-1')
				assert.ok((await bring(plane, second)) > 0)
				assert.deepEqual(plane.diff(await plane.read(), second), [])
				// Somebody else's rules are theirs; what they took from us comes back.
				const save = variant === 'nft' ? 'iptables-nft' : 'iptables-legacy'
				run(netns, save, '-t', 'nat', '-A', 'OUTPUT', '-d', '192.0.2.1', '-j', 'ACCEPT')
				run(netns, save, '-t', 'nat', '-F', 'KUBE-SERVICES')
				run(netns, save, '-t', 'nat', '-D', 'OUTPUT', '1')
				assert.ok((await bring(plane, second)) > 0)
				assert.deepEqual(plane.diff(await plane.read(), second), [])
				await bring(plane, plane.empty)
				const left = await plane.read()
				const rules = [...left.rulesets[4].values(), ...left.rulesets[6].values()].flatMap((c) => c.rules)
				assert.deepEqual(
					[...left.rulesets[4].values(), ...left.rulesets[6].values()].filter((c) => c.policy === undefined),
					[],
				)
				assert.equal(rules.length, 1)
				plane.close()
			})
		})

		it('says which line is refused, and that the rest of the table is not in force', async () => {
			await withNetns(async (netns) => {
				const plane = createIptables({ netns, variant })
				const program = plane.compile(nodeModel([0]), 'node-1')
				const changes = plane.diff(await plane.read(), program)
				const broken = changes.map((c) =>
					c.op === 'write' && c.chain.name === 'KUBE-MARK-MASQ'
						? {
								...c,
								chain: { ...c.chain, rules: [{ matches: [], target: { target: 'jump' as const, chain: 'KUBE-NO' } }] },
							}
						: c,
				)
				const outcome = await plane.apply(broken)
				assert.ok(!outcome.ok)
				assert.match(outcome.error.message, /Cannot apply .* changes with .*iptables.*KUBE-NO|line \d+/)
				const left = await plane.read()
				assert.equal(left.rulesets[4].get('nat KUBE-SERVICES'), undefined)
				assert.notDeepEqual(plane.diff(left, program), [])
				plane.close()
			})
		})
	})
}

function run(netns: string, program: string, ...args: string[]): void {
	const { status, stderr } = inNetnsAt(netns, () => spawnSync(program, args, { encoding: 'utf8' }))
	assert.equal(status, 0, stderr)
}
