// Drops the packet and tells its sender: an ICMP error or a TCP reset.

import { type ExpressionCodec, nameAt, u32 } from './codec.ts'
import type { RulePrinter } from './printer.ts'

const kinds = ['icmp', 'tcp-reset', 'icmpx'] as const

export interface RejectExpression {
	readonly kind: 'reject'
	readonly with: (typeof kinds)[number]
	/** ICMP code of the table's family; of icmpx the kernel's own four. */
	readonly code: number
}

const icmpCodes: Record<number, string> = {
	0: 'net-unreachable',
	1: 'host-unreachable',
	2: 'prot-unreachable',
	3: 'port-unreachable',
	9: 'net-prohibited',
	10: 'host-prohibited',
	13: 'admin-prohibited',
}
const icmp6Codes: Record<number, string> = {
	0: 'no-route',
	1: 'admin-prohibited',
	3: 'addr-unreachable',
	4: 'port-unreachable',
	5: 'policy-fail',
	6: 'reject-route',
}
const icmpxCodes: Record<number, string> = {
	0: 'no-route',
	1: 'port-unreachable',
	2: 'host-unreachable',
	3: 'admin-prohibited',
}

export const reject: ExpressionCodec<RejectExpression> = {
	name: 'reject',
	encode(e, out) {
		out.u32be(1, kinds.indexOf(e.with))
		out.u8(2, e.code)
	},
	decode(a) {
		return { kind: 'reject', with: nameAt(kinds, u32(a, 1), 'rejection'), code: a.get(2)?.[0] ?? 0 }
	},
	print: printReject,
	evaluate() {
		return { verdict: 'reject' }
	},
}

function printReject(e: RejectExpression, printer: RulePrinter): void {
	switch (e.with) {
		case 'tcp-reset':
			// nft leaves out a `meta l4proto tcp` right before: a reset says it.
			if (printer.last()?.implies === 'l4proto') printer.drop('l4proto')
			printer.say('reject with tcp reset')
			return
		case 'icmpx':
			printer.say(e.code === 1 ? 'reject' : `reject with icmpx ${icmpxCodes[e.code] ?? e.code}`)
			return
		case 'icmp': {
			const six = printer.network === 'ip6'
			const name = (six ? icmp6Codes : icmpCodes)[e.code] ?? String(e.code)
			printer.say(name === 'port-unreachable' ? 'reject' : `reject with ${six ? 'icmpv6' : 'icmp'} ${name}`)
			return
		}
		default: {
			const never: never = e.with
			throw new Error(`unknown rejection ${never}`)
		}
	}
}
