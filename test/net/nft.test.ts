// nf_tables itself, in throw-away namespaces: the shared suite, and that the real nft prints our rulesets as we do.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { describeRule } from '../../src/dataplane/nftables/evaluate.ts'
import { NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createAnonymousNetns, inNetns } from '../../src/linux/netns.ts'
import { fieldsOf, ip, th } from '../../src/linux/nft/build.ts'
import { diffPrograms } from '../../src/linux/nft/diff.ts'
import { type NftKernel, openKernel } from '../../src/linux/nft/kernel.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import { applyChanges, openNftSocket } from '../../src/linux/nft/transaction.ts'
import { programs } from './nft-programs.ts'
import { kernelSuite } from './nft-suite.ts'
import { reasonToSkip } from './services-world.ts'

const noNft = ['/usr/sbin/nft', '/sbin/nft', '/usr/bin/nft'].some(existsSync) ? false : 'the nft program is not here'

function inside(test: (kernel: NftKernel, netns: number) => void): void {
	const fd = createAnonymousNetns()
	const kernel = inNetns(fd, openKernel)
	try {
		test(kernel, fd)
	} finally {
		kernel.close()
		closeSync(fd)
	}
}

function nft(netns: number, ...args: string[]): string {
	const done = inNetns(netns, () => spawnSync('nft', args, { encoding: 'utf8' }))
	assert.equal(done.status, 0, `nft ${args.join(' ')}: ${done.signal ?? ''} ${done.stderr}`)
	return done.stdout
}

describe('nftables, the real kernel', { skip: reasonToSkip() }, () => {
	kernelSuite((test) => inside(test), 25)

	it('law: nft lists generated programs exactly as we print them', { skip: noNft }, () => {
		const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
		try {
			inside((kernel, netns) => {
				fc.assert(
					fc.property(programs, (program) => {
						kernel.apply(diffPrograms(kernel.read(), program, { owns: () => true }))
						const read = kernel.read()
						assert.equal(printProgram(read), nft(netns, 'list', 'ruleset'))
						assert.equal(printProgram(read, { handles: true }), nft(netns, '-a', 'list', 'ruleset'))
						JSON.parse(nft(netns, '-j', 'list', 'ruleset'))
					}),
					{ numRuns: 15 },
				)
			})
		} finally {
			rmSync(folder, { recursive: true })
		}
	})

	it('reads and prints rules that others wrote', { skip: noNft }, () => {
		const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
		const file = join(folder, 'ruleset')
		writeFileSync(file, foreign)
		try {
			inside((kernel, netns) => {
				nft(netns, '-f', file)
				assert.equal(printProgram(kernel.read(), { handles: true }), nft(netns, '-a', 'list', 'ruleset'))
			})
		} finally {
			rmSync(folder, { recursive: true })
		}
	})

	it('cuts what the socket cannot send at once, and still says what was refused', () => {
		inside((kernel, netns) => {
			const socket = inNetns(netns, () => new NetlinkSocket(12, { sendBuffer: 150_000 }))
			const place = { family: 'ip', table: 't' } as const
			const set = { name: 's', key: fieldsOf([ip.daddr, th.dport]), data: fieldsOf([ip.daddr]), flags: [] } as const
			const address = (i: number) => `10.0.${i >> 8}.${i & 255}`
			const entries = Array.from({ length: 20_000 }, (_, i) => [`${address(i)} . 80`, { data: '10.1.1.1' }] as const)
			const changes = [
				{ ...place, op: 'add-table' },
				{ ...place, op: 'add-set', set },
				{ ...place, op: 'add-elements', set, elements: entries },
				{ ...place, op: 'add-chain', chain: { name: 'c' } },
			] as const
			const receipt = applyChanges(socket, changes)
			assert.ok(receipt.transactions > 2, `${receipt.transactions} transactions, ${receipt.bytes} bytes`)
			const read = kernel.read().tables.get('ip t')
			assert.equal(read?.sets.get('s')?.elements.size, entries.length)
			assert.equal(read?.chains.size, 1)
			const other = entries.map(([key], i) => [key, { data: i === 15_000 ? '10.1.1.2' : '10.1.1.1' }] as const)
			assert.throws(
				() => applyChanges(socket, [{ ...place, op: 'add-elements', set, elements: other }]),
				/element "10\.0\.58\.152 \. 80 : 10\.1\.1\.2" of map "s" of table "ip t": the key is there with another value/,
			)
			assert.equal(
				applyChanges(inNetns(netns, openNftSocket), [{ ...place, op: 'delete-elements', set, elements: entries }])
					.transactions,
				1,
			)
			assert.equal(kernel.read().tables.get('ip t')?.sets.get('s')?.elements.size, 0)
			socket.close()
		})
	})

	it('describes the rule behind a handle, as a trace names it', { skip: noNft }, () => {
		inside((kernel, netns) => {
			nft(
				netns,
				'add table ip t; add chain ip t c; add rule ip t c tcp dport 80 counter accept comment "Service default/web"',
			)
			const program = kernel.read()
			const handle = program.tables.get('ip t')?.chains.get('c')?.rules[0]?.handle ?? 0
			assert.deepEqual(describeRule(program, 'ip', 't', 'c', handle), {
				family: 'ip',
				table: 't',
				chain: 'c',
				handle,
				text: 'tcp dport 80 counter packets 0 bytes 0 accept',
				comment: 'Service default/web',
				elements: [],
				because: [{ kind: 'Service', key: 'default/web' }],
			})
			assert.equal(describeRule(program, 'ip', 't', 'c', handle + 1), undefined)
		})
	})
})

const foreign = `table ip6 mixed {
	set ports { type inet_service; elements = { 1, 2, 3, 4, 5, 6, 7, 8 } }
	set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 11.0.0.3-11.0.0.9, 12.0.0.1 } }
	set seen { typeof ip6 saddr ; flags dynamic; size 100; elements = { ::1, ::2, ::3 } }
	map owners { type inet_service : ipv4_addr; elements = { 1 : 1.1.1.1, 2 : 1.1.1.1, 3 : 1.1.1.1 } }
	map marks { type ipv4_addr : mark; elements = { 1.1.1.1 : 1, 1.1.1.2 : 2, 1.1.1.3 : 3 } }
	chain leaf { }
	chain mixed {
		type filter hook input priority mangle + 5; policy drop;
		meta l4proto tcp counter reject with tcp reset
		meta l4proto tcp reject with tcp reset
		reject
		reject with icmpv6 type admin-prohibited
		ct state established,related accept
		ct state { established, related } accept
		ct status dnat ip6 saddr fd00::/64 drop
		tcp dport 80 tcp sport { 1, 2 } drop
		iifname "eth0" meta mark set 0x10 return
		iifname "veth*" accept
		log prefix "x" group 3
		limit rate 10/second burst 5 packets accept
		ip6 saddr fd00::1 ip6 daddr fd00::2 udp dport 53 udp sport 1000 meta nftrace set 1
		tcp sport 7 tcp dport 80 accept
		fib daddr type local accept
		udp dport 10-20 jump leaf
		ct mark set meta mark
		meta mark & 0xff == 0x12 accept
		meta mark set meta mark | 0x4000
		ip6 saddr != fd00::/62 drop
		add @seen { ip6 saddr }
	}
}
table ip nat4 {
	chain post {
		type nat hook postrouting priority srcnat;
		ip saddr 10.0.0.0/8 oifname != "lo" masquerade fully-random
		ip daddr 10.1.2.3 tcp dport { 80, 443 } snat to 192.168.0.1
	}
	chain pre {
		type nat hook prerouting priority dstnat - 1;
		tcp dport 8080 dnat to 10.0.0.1:80
		udp dport 53 redirect to :5353
		tcp dport vmap { 22 : accept, 23 : drop }
	}
}
`
