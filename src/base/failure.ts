// Errors of the second kind: the world said no. (A wrong configuration is a Finding, our own bug is an exception.)

/** A typed failure. `message` says the action, the thing quoted, then why. */
export class Failure extends Error {
	readonly code: string
	readonly details: Readonly<Record<string, unknown>>
	constructor(code: string, message: string, details: Record<string, unknown> = {}, options?: ErrorOptions) {
		super(message, options)
		this.name = 'Failure'
		this.code = code
		this.details = details
	}
}

export function isFailure(e: unknown, code?: string): e is Failure {
	return e instanceof Failure && (code === undefined || e.code === code)
}

/** The text of anything thrown. */
export function messageOf(e: unknown): string {
	return e instanceof Error ? e.message : String(e)
}
