// Health probes against real servers: one that is well, one that is not, one that says nothing, none, and an address
// nobody has; all in one round that takes no longer than its time.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Ip, parseIp } from '../../src/base/ip.ts'
import { askHealth } from '../../src/lab/external-health.ts'
import { bindTcp } from '../../src/linux/listen.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns } from '../../src/linux/netns.ts'
import { LOOPBACK, setLink } from '../../src/linux/route/links.ts'
import { skip } from './lab.ts'

test('each answer for itself, all at once', { skip }, async () => {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
	const netns = join(folder, 'router')
	const netlink = createNetns(netns, () => new NetlinkSocket(NETLINK_ROUTE))
	const e = new NetlinkEncoder()
	setLink(e, { index: LOOPBACK, up: true })
	netlink.request(e)
	netlink.close()
	const here = parseIp('127.0.0.1')
	const web = createServer((request, response) => {
		response.statusCode = request.url === '/healthz' ? 200 : 503
		response.end('{}')
	})
	const silent = createTcpServer(() => {})
	web.listen({ fd: bindTcp(netns, here, 80) })
	silent.listen({ fd: bindTcp(netns, here, 81) })
	try {
		const checks = [
			['well', here, 80, '/healthz'],
			['ill', here, 80, '/other'],
			['silent', here, 81, '/healthz'],
			['closed', here, 82, '/healthz'],
			['nowhere', '192.0.2.1', 80, '/healthz'],
		] as const
		const begun = performance.now()
		const answers = await askHealth(
			netns,
			checks.map(([id, ip, port, path]) => ({ id, ip: ip as Ip, port, path })),
			300,
		)
		assert.ok(performance.now() - begun < 2_000)
		assert.equal(answers.size, checks.length)
		assert.equal(answers.get('well'), undefined)
		assert.deepEqual(answers.get('ill'), { why: '127.0.0.1 port 80/other answers 503' })
		assert.deepEqual(answers.get('silent'), { why: '127.0.0.1 port 81 does not answer', mute: true })
		const closed = answers.get('closed')
		assert.match(closed?.why ?? '', /ECONNREFUSED/)
		assert.equal(closed?.mute, undefined)
		const nowhere = answers.get('nowhere')
		assert.match(nowhere?.why ?? '', /ENETUNREACH/)
		assert.equal(nowhere?.mute, true)
	} finally {
		web.close()
		web.closeAllConnections()
		silent.close()
		deleteNetns(netns)
		rmSync(folder, { recursive: true, force: true })
	}
})
