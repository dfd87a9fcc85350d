// ipset on a real kernel: our messages make, fill, list, swap and remove sets, and rules look into them.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { it } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import {
	changeEntry,
	createSet,
	destroySet,
	flushSet,
	type IpSet,
	IpSets,
	type SetHeader,
	swapSets,
} from '../../src/linux/ipset/ipset.ts'
import { createAnonymousNetns, inNetns } from '../../src/linux/netns.ts'
import { reasonToSkip } from './services-world.ts'

function unusable(): string | false {
	const why = reasonToSkip()
	if (why !== false) return why
	const netns = createAnonymousNetns()
	try {
		inNetns(netns, () => {
			const sets = new IpSets()
			try {
				sets.list()
			} finally {
				sets.close()
			}
		})
		return false
	} catch (e) {
		if (!isFailure(e)) throw e
		return `the kernel has no ipset: ${e.message}`
	} finally {
		closeSync(netns)
	}
}

it('ipset in the kernel: every type, both families, many entries', { skip: unusable() }, () => {
	const netns = createAnonymousNetns()
	try {
		inNetns(netns, () => {
			const sets = new IpSets()
			const examples: IpSet[] = [
				{ name: 'A4', type: 'hash:ip', family: 4, entries: ['10.96.0.1', '10.96.0.2'] },
				{ name: 'A6', type: 'hash:ip', family: 6, entries: ['fd00::1'] },
				{
					name: 'B4',
					type: 'hash:ip,port',
					family: 4,
					entries: ['10.96.0.1,sctp:9', '10.96.0.1,tcp:80', '10.96.0.1,udp:53'],
				},
				{ name: 'B6', type: 'hash:ip,port', family: 6, entries: ['fd00::1,tcp:80'] },
				{ name: 'C4', type: 'hash:ip,port,ip', family: 4, entries: ['10.0.0.1,tcp:80,10.0.0.1'] },
				{
					name: 'D4',
					type: 'hash:ip,port,net',
					family: 4,
					entries: ['1.2.3.4,tcp:80,10.0.0.0/8', '1.2.3.4,tcp:80,10.1.2.3'],
				},
				{ name: 'D6', type: 'hash:ip,port,net', family: 6, entries: ['fd00::1,tcp:80,fd01::/16'] },
				{ name: 'E', type: 'bitmap:port', entries: ['30080', '30443'] },
			]
			const list = () =>
				sets
					.list()
					.map((set) => ({ ...set, entries: set.entries.toSorted() }))
					.sort((a, b) => (a.name < b.name ? -1 : 1))
			for (const { entries, ...header } of examples) {
				sets.request((e) => createSet(e, header))
				sets.request((e) => {
					// Twice: that it is there already is no error.
					for (const entry of [...entries, ...entries]) changeEntry(e, 'add', header, entry)
				})
			}
			assert.deepEqual(list(), examples)
			const { entries: _, ...b4 } = examples[2] as IpSet
			sets.request((e) => {
				for (let i = 0; i < 2; i++) changeEntry(e, 'del', b4, '10.96.0.1,udp:53')
			})
			assert.deepEqual(list()[2]?.entries, ['10.96.0.1,sctp:9', '10.96.0.1,tcp:80'])
			assert.throws(() => sets.request((e) => createSet(e, b4)), { name: 'Failure' })
			const other: SetHeader = { ...b4, name: 'B4-next' }
			sets.request((e) => createSet(e, other))
			for (let port = 1; port <= 2000; port += 100) {
				sets.request((e) => {
					for (let i = port; i < port + 100; i++) changeEntry(e, 'add', other, `10.96.0.9,tcp:${i}`)
				})
			}
			sets.request((e) => swapSets(e, 'B4', 'B4-next'))
			// More than one message of a listing.
			assert.equal(sets.list().find((s) => s.name === 'B4')?.entries.length, 2000)
			assert.equal(sets.list().find((s) => s.name === 'B4-next')?.entries.length, 2)
			sets.request((e) => flushSet(e, 'B4'))
			assert.equal(sets.list().find((s) => s.name === 'B4')?.entries.length, 0)
			sets.request((e) => {
				for (const name of [...examples.map((x) => x.name), 'B4-next']) destroySet(e, name)
			})
			assert.deepEqual(sets.list(), [])
			sets.close()
		})
	} finally {
		closeSync(netns)
	}
})
