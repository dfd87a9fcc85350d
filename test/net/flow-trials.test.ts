// What `podwire doctor` says of the flow log is tried, not guessed: in a namespace that can, and in one that cannot.

import assert from 'node:assert/strict'
import { closeSync } from 'node:fs'
import { test } from 'node:test'
import { openConntrack } from '../../src/linux/conntrack.ts'
import { hearConnection, hearLogged } from '../../src/linux/flow-trials.ts'
import { probeKernel } from '../../src/linux/kernel.ts'
import { createAnonymousNetns, inNetns } from '../../src/linux/netns.ts'
import { readProgram } from '../../src/linux/nft/read.ts'
import { openNftSocket } from '../../src/linux/nft/transaction.ts'
import { writeSysctl } from '../../src/linux/sysctl.ts'
import { reasonToSkip } from './two-nodes.ts'

const skip = reasonToSkip()

test('a packet that is logged and a connection that begins are heard of; nothing is left', { skip }, () => {
	const netns = createAnonymousNetns()
	try {
		inNetns(netns, () => {
			for (let i = 0; i < 3; i++) {
				hearLogged()
				hearConnection()
			}
			const nft = openNftSocket()
			assert.equal(readProgram(nft).tables.size, 0)
			nft.close()
		})
	} finally {
		closeSync(netns)
	}
})

test('where connections make no events, it is said, with the setting', { skip }, () => {
	const netns = createAnonymousNetns()
	try {
		inNetns(netns, () => {
			openConntrack().close()
			writeSysctl('net.netfilter.nf_conntrack_events', '0')
			assert.throws(hearConnection, { code: 'Silent', message: /nf_conntrack_events is 0\)$/ })
		})
	} finally {
		closeSync(netns)
	}
})

test('doctor has a line for each', { skip }, async () => {
	const found = await probeKernel()
	for (const name of ['packet log', 'connection events']) {
		const line = found.find((c) => c.capability === name)
		assert.equal(line?.needed, false, name)
		assert.equal(line.ok, true, line.why)
	}
})
