// Run inside the machine: what our IPVS and ipset messages made, as ipvsadm and ipset tell it.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import type { Ip } from '../../../src/base/ip.ts'
import {
	addDestination,
	addServer,
	type Destination,
	deleteDestination,
	deleteServer,
	flushServers,
	Ipvs,
	schedulers,
	setTimeouts,
	type VirtualServer,
} from '../../../src/linux/ipvs/ipvs.ts'

const ip = (text: string) => text as Ip
const destination = (text: string, port: number, weight = 1): Destination => ({
	ip: ip(text),
	port,
	weight,
	forwarding: 'masquerade',
	upper: 0,
	lower: 0,
})
const server = (more: Partial<VirtualServer> = {}): VirtualServer => ({
	protocol: 'TCP',
	ip: ip('10.96.0.1'),
	port: 80,
	scheduler: 'rr',
	...more,
})

function ipvsadm(...args: string[]): string {
	const { stdout, stderr, status } = spawnSync('/sbin/ipvsadm', args, { encoding: 'utf8' })
	assert.equal(status, 0, stderr)
	return stdout.trim()
}

test('ipvsadm tells what was made, and is told by us', () => {
	const ipvs = new Ipvs()
	const here = schedulers.filter((s) => readFileSync('/proc/modules', 'utf8').includes(`ip_vs_${s} `))
	assert.deepEqual(here, ['rr', 'wrr', 'lc', 'wlc', 'sh', 'dh', 'sed', 'nq', 'mh'])
	const servers = [
		...here.map((scheduler, i) =>
			server({ port: 80 + i, scheduler, ...(scheduler === 'mh' ? { hashPort: true, fallback: true } : {}) }),
		),
		server({ protocol: 'UDP', port: 53, persistence: 10800 }),
		server({ protocol: 'SCTP', port: 9 }),
		server({ ip: ip('fd00:10:96::1'), persistence: 60 }),
	]
	ipvs.request((e, family) => {
		for (const one of servers) {
			addServer(e, family, one)
			const six = one.ip.includes(':')
			addDestination(e, family, one, destination(six ? 'fd00::2' : '10.244.1.2', 8080))
			addDestination(e, family, one, destination(six ? 'fd00::3' : '10.244.1.3', 8080, 3))
		}
	})
	const saved = ipvsadm('-S', '-n')
		.split('\n')
		.map((line) => line.trim())
	assert.ok(saved.includes('-A -t 10.96.0.1:80 -s rr'), saved.join('\n'))
	assert.ok(saved.includes('-a -t 10.96.0.1:80 -r 10.244.1.3:8080 -m -w 3'))
	assert.ok(saved.includes('-A -u 10.96.0.1:53 -s rr -p 10800'))
	assert.ok(saved.includes('-A -t [fd00:10:96::1]:80 -s rr -p 60'))
	assert.ok(saved.includes('-A -t 10.96.0.1:88 -s mh -b mh-fallback,mh-port'))
	const key = (s: VirtualServer) => `${s.protocol} ${s.ip} ${s.port}`
	const sort = (list: VirtualServer[]) => list.toSorted((a, b) => (key(a) < key(b) ? -1 : 1))
	assert.deepEqual(sort(ipvs.servers()), sort(servers))
	assert.deepEqual(
		ipvs.destinations(server()).sort((a, b) => a.weight - b.weight),
		[
			{ ...destination('10.244.1.2', 8080), active: 0, inactive: 0 },
			{ ...destination('10.244.1.3', 8080, 3), active: 0, inactive: 0 },
		],
	)
	// Changed, taken away, and made by the other program.
	ipvs.request((e, family) => {
		addServer(e, family, server({ scheduler: 'wrr', persistence: 30 }), true)
		addDestination(e, family, server(), destination('10.244.1.2', 8080, 0), true)
		deleteDestination(e, family, server(), destination('10.244.1.3', 8080))
		deleteServer(e, family, server({ port: 81 }))
	})
	const after = ipvsadm('-S', '-n')
	assert.match(after, /-A -t 10\.96\.0\.1:80 -s wrr -p 30/)
	assert.match(after, /-a -t 10\.96\.0\.1:80 -r 10\.244\.1\.2:8080 -m -w 0/)
	assert.doesNotMatch(after, /10\.96\.0\.1:80 -r 10\.244\.1\.3/)
	assert.doesNotMatch(after, /10\.96\.0\.1:81/)
	ipvs.request(flushServers)
	assert.equal(ipvsadm('-S', '-n'), '')
	ipvsadm('-A', '-t', '192.0.2.1:443', '-s', 'sh', '-p', '77')
	assert.deepEqual(ipvs.servers(), [server({ ip: ip('192.0.2.1'), port: 443, scheduler: 'sh', persistence: 77 })])
	ipvs.request((e, family) => setTimeouts(e, family, { tcp: 1000, tcpFin: 60, udp: 90 }))
	assert.deepEqual(ipvs.timeouts(), { tcp: 1000, tcpFin: 60, udp: 90 })
	assert.match(ipvsadm('-L', '--timeout'), /1000 60 90/)
	// Refusals come with the errno's name.
	assert.throws(() => ipvs.request((e, f) => addServer(e, f, server({ ip: ip('192.0.2.1'), port: 443 }))), {
		code: 'EEXIST',
	})
	assert.throws(() => ipvs.request((e, f) => deleteServer(e, f, server({ port: 1 }))), { code: 'ESRCH' })
	ipvs.request(flushServers)
	ipvs.close()
})
