// An expression this code does not know, of somebody else's rule: kept byte for byte, never guessed at.

import type { ExpressionCodec } from './codec.ts'
import { NotEvaluable } from './machine.ts'

export interface UnknownExpression {
	readonly kind: 'unknown'
	readonly name: string
	/** NFTA_EXPR_DATA, hexadecimal. */
	readonly data: string
}

export const unknown: Omit<ExpressionCodec<UnknownExpression>, 'encode' | 'decode' | 'name'> = {
	print(e, printer) {
		printer.say(`[${e.name}]`)
	},
	evaluate(e) {
		throw new NotEvaluable(`expression ${JSON.stringify(e.name)} is not known`)
	},
}
