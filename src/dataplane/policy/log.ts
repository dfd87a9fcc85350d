// What policies write to the kernel's log (nflog), and how it is read again. A rule that drops never logs itself: the log
// is a rule of its own before it, limited in rate, so that a flood is dropped without being told packet by packet. Prefix:
// `podwire deny ingress-shop-0a1b2c3d4e5f NetworkPolicy shop/web web.yaml:3`: verdict, chain (which names direction and
// namespace), then as much of the deciding rule's comment as 127 bytes leave room for.

import { count } from '../../linux/nft/build.ts'
import type { Expression } from '../../linux/nft/expr/expression.ts'
import type { NftRule } from '../../linux/nft/program.ts'
import type { Direction } from '../../model/policy.ts'
import { clip } from './members.ts'

export interface LogConfig {
	/** Netlink group of the node's namespace that denied (and audited) new connections are logged to. */
	readonly group: number
	/** Allowed ones as well. */
	readonly allowed: boolean
}

export type LoggedVerdict = 'allow' | 'deny' | 'audit'

export interface LogPrefix {
	readonly verdict: LoggedVerdict
	readonly direction: Direction
	/** In which the rule is that decided. */
	readonly chain: string
	/** The beginning of the rule's comment. */
	readonly comment: string
}

/** Packets a second that one rule tells of, and how many at once. The counters of both rules say what was not told. */
export const logRate = { rate: 50, burst: 200 } as const

/** `chain` begins with the direction, as chainName writes it. */
export function logPrefix(verdict: LoggedVerdict, chain: string, comment: string): string {
	return clip(`podwire ${verdict} ${chain} ${comment}`)
}

/** What logPrefix wrote; undefined for the prefixes of others. */
export function parseLogPrefix(prefix: string): LogPrefix | undefined {
	const match = /^podwire (allow|deny|audit) ((ingress|egress)-\S*) ?(.*)$/.exec(prefix)
	if (match === null) return undefined
	const [, verdict, chain = '', direction, comment = ''] = match
	return { verdict: verdict as LoggedVerdict, direction: direction as Direction, chain, comment }
}

/** To be put before the rule that decides; `matches` are that rule's own. Nothing where nobody wants a log. */
export function logRules(
	log: LogConfig | undefined,
	verdict: LoggedVerdict,
	chain: string,
	comment: string,
	matches: readonly Expression[] = [],
): NftRule[] {
	if (log === undefined || (verdict === 'allow' && !log.allowed)) return []
	const { rate, burst } = logRate
	return [
		{
			expressions: [
				...matches,
				{ kind: 'limit', of: 'packets', rate, per: 1, burst },
				count,
				{ kind: 'log', prefix: logPrefix(verdict, chain, comment), group: log.group },
			],
		},
	]
}
