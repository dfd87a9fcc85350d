// Takes the packet out of connection tracking.

import type { ExpressionCodec } from './codec.ts'

export interface NotrackExpression {
	readonly kind: 'notrack'
}

export const notrack: ExpressionCodec<NotrackExpression> = {
	name: 'notrack',
	encode() {},
	decode() {
		return { kind: 'notrack' }
	},
	print(_, printer) {
		printer.say('notrack')
	},
	evaluate(_, machine) {
		machine.packet = { ...machine.packet, state: 'untracked' }
		return undefined
	},
}
