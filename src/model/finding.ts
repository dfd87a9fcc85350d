// A fault in the user's configuration, found while the model is built. Data, never an exception.

import type { Origin } from './origin.ts'

export type Severity = 'error' | 'warning' | 'info'

export interface Finding {
	/** Stable: `PW` and four digits; docs/findings has a page for each. */
	readonly code: string
	readonly severity: Severity
	/** One sentence: what is wrong, the names quoted, and what would be right. */
	readonly text: string
	readonly because: readonly Origin[]
}
