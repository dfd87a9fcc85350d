// Asks the routing table: what kind of address, through which interface.

import { ipFromBytes, ipToBytes } from '../../../base/ip.ts'
import { dataType } from '../datatype.ts'
import { registerNumber, registerWord } from '../wire.ts'
import { type ExpressionCodec, nameAt, u32 } from './codec.ts'
import { NotEvaluable } from './machine.ts'

const results = ['unspec', 'oif', 'oifname', 'type'] as const
const flagNames = ['saddr', 'daddr', 'mark', 'iif', 'oif'] as const
const PRESENT = 32

export interface FibExpression {
	readonly kind: 'fib'
	readonly result: (typeof results)[number]
	readonly by: readonly (typeof flagNames)[number][]
	/** Only whether there is a route. */
	readonly present?: true
	readonly to: number
}

export const fib: ExpressionCodec<FibExpression> = {
	name: 'fib',
	encode(e, out) {
		const flags = e.by.reduce((sum, name) => sum | (1 << flagNames.indexOf(name)), e.present === true ? PRESENT : 0)
		out.u32be(1, registerNumber(e.to)).u32be(2, results.indexOf(e.result)).u32be(3, flags)
	},
	decode(a) {
		const flags = u32(a, 3)
		return {
			kind: 'fib',
			result: nameAt(results, u32(a, 2), 'fib result'),
			by: flagNames.filter((_, i) => (flags & (1 << i)) !== 0),
			...((flags & PRESENT) !== 0 ? { present: true as const } : {}),
			to: registerWord(u32(a, 1)),
		}
	},
	print(e, printer) {
		const type =
			e.present === true
				? 'boolean'
				: e.result === 'type'
					? 'fib_addrtype'
					: e.result === 'oif'
						? 'iface_index'
						: 'ifname'
		printer.load(e.to, {
			text: `fib ${e.by.join(' . ')} ${e.result}`,
			fields: [{ type, bytes: dataType(type).bytes }],
		})
	},
	evaluate(e, machine) {
		if (e.result === 'oif' && e.present === true && e.by.join() === 'saddr,iif') {
			const { source, inInterface } = machine.packet
			const { wayBack } = machine.context
			if (wayBack === undefined || inInterface === undefined) throw new NotEvaluable('routes are not known')
			machine.registers.writeUInt32LE(wayBack(ipFromBytes(ipToBytes(source)), inInterface) ? 1 : 0, e.to * 4)
			return undefined
		}
		const about = machine.context.addressType
		if (e.result !== 'type' || about === undefined || e.by.includes('mark'))
			throw new NotEvaluable('routes are not known')
		const ip = e.by.includes('saddr') ? machine.packet.source : machine.packet.destination
		const type = about(ipFromBytes(ipToBytes(ip)))
		const value = type === undefined ? undefined : dataType('fib_addrtype').symbols?.[type]
		if (value === undefined) throw new NotEvaluable(`the kind of address ${ip} is not known`)
		machine.registers.writeUInt32LE(value, e.to * 4)
		return undefined
	},
}
