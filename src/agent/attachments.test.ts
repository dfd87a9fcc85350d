import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import type { Ip } from '../base/ip.ts'
import { type AttachmentRecord, hostInterfaceOf, openAttachments } from './attachments.ts'

const record = (uid: string): AttachmentRecord => ({
	uid,
	pod: `default/${uid}`,
	node: 'node-1',
	ips: ['10.244.0.2' as Ip, 'fd00::2' as Ip],
	namespace: `/run/x/${uid}`,
	hostInterface: hostInterfaceOf(uid),
	mtu: 1500,
})

test('what was acknowledged is there after kill -9', () => {
	const dir = mkdtempSync(join(tmpdir(), 'podwire-attachments-'))
	try {
		const path = join(dir, 'a.db')
		const child = spawnSync(
			process.execPath,
			[
				'--disable-warning=ExperimentalWarning',
				'-e',
				`import('${import.meta.dirname}/attachments.ts').then(({ openAttachments }) => {
					const s = openAttachments(${JSON.stringify(path)})
					for (const r of ${JSON.stringify(['a', 'b', 'c'].map(record))}) s.put(r)
					s.delete('b')
					process.kill(process.pid, 'SIGKILL')
				})`,
			],
			{ encoding: 'utf8' },
		)
		assert.equal(child.signal, 'SIGKILL', child.stderr)
		const store = openAttachments(path)
		assert.deepEqual(store.all(), [record('a'), record('c')])
		store.close()
	} finally {
		rmSync(dir, { recursive: true })
	}
})

test('a file that is no database is one clear message', () => {
	const dir = mkdtempSync(join(tmpdir(), 'podwire-attachments-'))
	try {
		const path = join(dir, 'a.db')
		writeFileSync(path, 'not a database at all, but long enough to be looked at'.repeat(40))
		assert.throws(
			() => openAttachments(path),
			(e) => isFailure(e, 'CannotRead') && /Cannot open the record of attachments .*not a database/.test(e.message),
		)
	} finally {
		rmSync(dir, { recursive: true })
	}
})

test('an interface name fits IFNAMSIZ and is stable', () => {
	assert.equal(hostInterfaceOf('a'), 'pwca978112ca1b')
	assert.ok(hostInterfaceOf('b').length <= 15)
})
