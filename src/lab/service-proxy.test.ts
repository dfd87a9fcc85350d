import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { LabPaths } from './paths.ts'
import {
	chooseServiceProxy,
	keepScheduler,
	keepServiceProxy,
	readScheduler,
	readServiceProxy,
} from './service-proxy.ts'

test('the choice is kept, and a change that was cut off is seen', () => {
	const folder = mkdtempSync(join(tmpdir(), 'pw-proxy-'))
	try {
		const paths = { serviceProxy: join(folder, 'service-proxy') } as LabPaths
		assert.equal(readServiceProxy(paths), undefined)
		keepServiceProxy(paths, 'nftables')
		assert.deepEqual(readServiceProxy(paths), { mode: 'nftables', unfinished: false })
		keepServiceProxy(paths, 'nftables', 'iptables')
		assert.deepEqual(readServiceProxy(paths), { mode: 'nftables', unfinished: true })
		keepServiceProxy(paths, 'iptables')
		assert.deepEqual(readServiceProxy(paths), { mode: 'iptables', unfinished: false })
		// A newer version's word, or a torn file: as if nobody had chosen.
		writeFileSync(paths.serviceProxy, 'warp-drive\n')
		assert.equal(readServiceProxy(paths), undefined)
	} finally {
		rmSync(folder, { recursive: true, force: true })
	}
})

test("IPVS' scheduler is kept, rr where nobody chose", () => {
	const folder = mkdtempSync(join(tmpdir(), 'pw-proxy-'))
	try {
		const paths = { scheduler: join(folder, 'ipvs-scheduler') } as LabPaths
		assert.equal(readScheduler(paths), 'rr')
		keepScheduler(paths, 'lc')
		assert.equal(readScheduler(paths), 'lc')
		writeFileSync(paths.scheduler, 'dice\n')
		assert.equal(readScheduler(paths), 'rr')
	} finally {
		rmSync(folder, { recursive: true, force: true })
	}
})

test('eBPF is not for many nodes on one machine', async () => {
	await assert.rejects(chooseServiceProxy('ebpf', 61), { code: 'Unsupported', message: /at most 60 nodes.*has 61/ })
	assert.equal(await chooseServiceProxy('auto', 40), 'nftables')
	assert.equal(await chooseServiceProxy('nftables', 100), 'nftables')
})
