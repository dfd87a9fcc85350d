// A process that asks the nodes is also the one that answers for them: while it is busy no node has fallen silent.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parseIp } from '../../src/base/ip.ts'
import { askHealth } from '../../src/lab/external-health.ts'
import { bindTcp } from '../../src/linux/listen.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns } from '../../src/linux/netns.ts'
import { LOOPBACK, setLink } from '../../src/linux/route/links.ts'
import { skip } from './lab.ts'

test('health: a round that the process itself overslept', { skip }, async () => {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
	const netns = join(folder, 'router')
	const netlink = createNetns(netns, () => new NetlinkSocket(NETLINK_ROUTE))
	const e = new NetlinkEncoder()
	setLink(e, { index: LOOPBACK, up: true })
	netlink.request(e)
	netlink.close()
	const ip = parseIp('127.0.0.1')
	const web = createServer((_, response) => response.end('{}'))
	const silent = createTcpServer(() => {})
	web.listen({ fd: bindTcp(netns, ip, 80) })
	silent.listen({ fd: bindTcp(netns, ip, 81) })
	try {
		const asking = askHealth(
			netns,
			[
				{ id: 'well', ip, port: 80, path: '/healthz' },
				{ id: 'silent', ip, port: 81, path: '/healthz' },
			],
			20,
		)
		// Nothing else of this process runs meanwhile.
		Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
		const answers = await asking
		assert.equal(answers.get('well'), undefined)
		assert.notEqual(answers.get('silent'), undefined)
	} finally {
		web.close()
		web.closeAllConnections()
		silent.close()
		deleteNetns(netns)
		rmSync(folder, { recursive: true, force: true })
	}
})
