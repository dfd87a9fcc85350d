// The eBPF data plane against this kernel: what was applied is read, whatever the order; the verifier takes the
// programs, and says why it does not take others; what somebody else changed is found and repaired; nothing stays.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../src/base/failure.ts'
import type { Ip } from '../../src/base/ip.ts'
import { createEbpf, type EbpfProgram, ebpfUsable } from '../../src/dataplane/ebpf/ebpf.ts'
import { assemble } from '../../src/linux/bpf/assemble.ts'
import { exit, load, set } from '../../src/linux/bpf/instruction.ts'
import { BpfMap, createMap, kernelBuffer, loadProgram } from '../../src/linux/bpf/system.ts'
import { createNetns, deleteNetns } from '../../src/linux/netns.ts'
import { bpf } from '../../src/linux/syscalls.ts'
import { ServiceModels } from './ebpf-models.ts'
import { podIp, reasonToSkip, sketchModel, sketchService } from './services-world.ts'

const skip = reasonToSkip() || ebpfUsable() || false
const { models, follow } = ServiceModels

/** This process's own descriptors of eBPF objects, with what the kernel says of each. */
function objects(kind: 'map' | 'prog' | 'link'): { fd: number; about: string }[] {
	return readdirSync('/proc/self/fd').flatMap((name) => {
		try {
			const target = readlinkSync(`/proc/self/fd/${name}`)
			if (!target.includes(kind === 'link' ? 'bpf_link' : `bpf-${kind}`) && target !== `anon_inode:bpf_${kind}`)
				return []
			return [{ fd: Number(name), about: readFileSync(`/proc/self/fdinfo/${name}`, 'utf8') }]
		} catch {
			return []
		}
	})
}

describe('eBPF and the kernel', { skip }, () => {
	let folder: string
	let netns: string
	before(() => {
		folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
		netns = join(folder, 'netns')
		createNetns(netns)
	})
	after(() => {
		deleteNetns(netns)
		rmSync(folder, { recursive: true, force: true })
	})

	it('law: what was applied is read', async () => {
		await fc.assert(
			fc.asyncProperty(fc.array(models, { minLength: 2, maxLength: 5 }), async (steps) => {
				const plane = createEbpf({ netns })
				try {
					let have: EbpfProgram | undefined
					let model = steps[0] as (typeof steps)[number]
					for (const step of steps) {
						model = follow(model, step)
						const want = plane.compile(model, 'node-1')
						assert.deepEqual(await plane.apply(plane.diff(have, want)), { ok: true })
						const read = await plane.read()
						assert.deepEqual(plane.diff(read, want), [])
						assert.deepEqual(plane.diff(want, read), [])
						const { clients, ...rest } = plane.toJson(read) as { clients?: unknown }
						assert.deepEqual(rest, plane.toJson(want))
						have = want
					}
				} finally {
					plane.close()
				}
			}),
			{ numRuns: 40 },
		)
		assert.deepEqual(objects('map'), [])
		assert.deepEqual(objects('link'), [])
		assert.deepEqual(objects('prog'), [])
	})

	const service = (name: string, ip: string) =>
		sketchService({ name, ips: [ip], ports: [{ port: 80, endpoints: [{ ip: podIp(0), port: 80 }] }] })

	it('finds and repairs what somebody else changed', async () => {
		const plane = createEbpf({ netns })
		try {
			const want = plane.compile(sketchModel([service('a', '10.96.0.1'), service('b', '10.96.0.2')]), 'node-1')
			assert.deepEqual(await plane.apply(plane.diff(undefined, want)), { ok: true })
			const repair = async () => {
				const read = await plane.read()
				const changes = plane.diff(read, want)
				assert.deepEqual(await plane.apply(changes), { ok: true })
				assert.deepEqual(plane.diff(await plane.read(), want), [])
				return changes.map((c) => c.change)
			}
			assert.deepEqual(await repair(), [])
			// An element that was deleted, one that was written over, one that leads nowhere.
			const found = objects('map').find(({ about }) => /key_size:\t8\nvalue_size:\t64\n/.test(about))
			const map = new BpfMap(found?.fd as number, { type: 'hash', name: 'x', keySize: 8, valueSize: 64, capacity: 0 })
			const [key, value] = map.entries()[0] as [Uint8Array, Uint8Array]
			map.delete(key)
			assert.deepEqual(await repair(), ['frontends'])
			value[8] = 99
			map.set(key, value)
			assert.deepEqual(await repair(), ['frontends'])
			const other = kernelBuffer(8)
			other.set([1, 2, 3, 4, 0, 80])
			map.set(other, value)
			assert.deepEqual(await repair(), ['frontends'])
			assert.equal(map.entries().length, 2)
			// A program that was detached (LINK_DETACH).
			const link = objects('link').find(({ about }) => /attach_type:\t10$/m.test(about))
			const attribute = kernelBuffer(4)
			new DataView(attribute.buffer).setUint32(0, link?.fd as number, true)
			assert.equal(bpf(34, attribute), 0)
			assert.equal((await plane.read()).attached.has('connect4'), false)
			assert.deepEqual(await repair(), ['attach'])
		} finally {
			plane.close()
		}
	})

	it('many Services come and go: the maps grow, and hold no more than there is', async () => {
		const plane = createEbpf({ netns })
		try {
			const make = (count: number, from = 0) =>
				sketchModel(
					Array.from({ length: count }, (_, i) =>
						service(`s${i + from}`, `10.96.${(i + from) >> 8}.${(i + from) & 255}`),
					),
				)
			let have: EbpfProgram | undefined
			const bring = async (model: ReturnType<typeof make>) => {
				const want = plane.compile(model, 'node-1')
				assert.deepEqual(await plane.apply(plane.diff(have, want)), { ok: true })
				assert.deepEqual(plane.diff(await plane.read(), want), [])
				have = want
				return plane.memory()
			}
			const few = await bring(make(200))
			const many = await bring(make(2000))
			assert.ok(many > few)
			// Each time all others: nothing adds up.
			for (let i = 0; i < 6; i++) await bring(make(2000, i * 2000))
			assert.ok((await bring(make(2000))) < many * 1.5)
			await bring(make(0))
			assert.equal(plane.memory(), 0)
		} finally {
			plane.close()
		}
	})

	it('the verifier says why, at bounded length', () => {
		try {
			// The second argument of a program is nothing.
			loadProgram(
				'pw_wrong',
				'connect4',
				assemble([load(4, 'r0', 'r2', 0), exit], () => 0),
			)
			assert.fail('was loaded')
		} catch (e) {
			assert.ok(isFailure(e, 'EACCES'))
			assert.match(
				e.message,
				/^Cannot load the eBPF program "pw_wrong": Permission denied \(EACCES\); the verifier says: .*R2 !read_ok/s,
			)
			assert.ok(e.message.length < 2200)
		}
		try {
			const map = createMap({ type: 'hash', name: 'pw_x', keySize: 8, valueSize: 8, capacity: 1 })
			try {
				map.set(kernelBuffer(8), kernelBuffer(8))
				map.set(kernelBuffer(8).fill(1), kernelBuffer(8))
				assert.fail('a full map took more')
			} finally {
				map.close()
			}
		} catch (e) {
			assert.ok(isFailure(e, 'E2BIG'), String(e))
		}
		// Long programs have long logs.
		const long = [...Array.from({ length: 3000 }, () => set('r3', 'r1')), load(4, 'r0', 'r2', 0), exit]
		assert.throws(
			() =>
				loadProgram(
					'pw_long',
					'connect4',
					assemble(long, () => 0),
				),
			(e) => isFailure(e) && e.message.length < 2200 && String(e.details.log).length <= 16_000,
		)
	})

	it('deletes many keys, whether they are there or not', () => {
		const map = createMap({ type: 'hash', name: 'pw_x', keySize: 4, valueSize: 4, capacity: 64 })
		try {
			const keys = kernelBuffer(40 * 4)
			for (let i = 0; i < 40; i++) keys[i * 4] = i
			map.setAll(keys, kernelBuffer(40 * 4), 20)
			assert.equal(map.entries().length, 20)
			map.deleteAll(keys.slice(10 * 4), 30)
			assert.deepEqual(
				map
					.entries()
					.map(([key]) => key[0] as number)
					.sort((a, b) => a - b),
				[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
			)
			const mixed = kernelBuffer(14 * 4)
			mixed.set([...keys.slice(30 * 4), ...keys.slice(0, 3 * 4), ...keys.slice(15 * 4, 16 * 4)])
			map.deleteAll(mixed, 14)
			assert.equal(map.entries().length, 7)
		} finally {
			map.close()
		}
	})

	it('a process that gets signals meanwhile loads its programs all the same', () => {
		const script = `import { ebpfUsable } from ${JSON.stringify(new URL('../../src/dataplane/ebpf/ebpf.ts', import.meta.url).pathname)}
for (let i = 0; i < 10; i++) { const why = ebpfUsable(); if (why !== undefined) { console.log(why); process.exit(1) } }`
		// A profiler interrupts every millisecond, which is how long the verifier takes.
		const done = spawnSync(
			process.execPath,
			[
				'--disable-warning=ExperimentalWarning',
				'--cpu-prof',
				'--cpu-prof-dir',
				folder,
				'--input-type=module',
				'-e',
				script,
			],
			{ encoding: 'utf8' },
		)
		assert.equal(done.status, 0, done.stdout + done.stderr)
	})

	it('without rights it says so', () => {
		const script = `import { ebpfUsable } from ${JSON.stringify(new URL('../../src/dataplane/ebpf/ebpf.ts', import.meta.url).pathname)}
console.log(ebpfUsable())`
		const done = spawnSync(
			'unshare',
			['-Urnm', process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script],
			{ encoding: 'utf8' },
		)
		if (done.error !== undefined || /unshare:/.test(done.stderr)) return
		assert.match(done.stdout, /may not load eBPF programs .*run as root/)
	})

	it('two data planes of one machine do not see each other', async () => {
		const second = join(folder, 'second')
		createNetns(second)
		const [a, b] = [createEbpf({ netns }), createEbpf({ netns: second })]
		try {
			const program = a.compile(sketchModel([service('a', '10.96.0.1')]), 'node-1')
			assert.deepEqual(await a.apply(a.diff(undefined, program)), { ok: true })
			assert.equal((await b.read()).attached.size, 0)
			const other = b.compile(sketchModel([service('b', '10.96.0.2')]), 'node-1')
			assert.deepEqual(await b.apply(b.diff(undefined, other)), { ok: true })
			const keys = async (plane: typeof a) => [...(await plane.read()).frontends.keys()] as (string | Ip)[]
			assert.deepEqual([await keys(a), await keys(b)], [['10.96.0.1 tcp 80'], ['10.96.0.2 tcp 80']])
			b.close()
			assert.deepEqual(a.diff(await a.read(), program), [])
		} finally {
			a.close()
			b.close()
			deleteNetns(second)
		}
	})
})
