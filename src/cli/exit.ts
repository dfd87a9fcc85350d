// Exit codes of every command (cli.md): scripts rely on them.

export const exit = {
	/** Yes, reached, clean. */
	ok: 0,
	/** No, denied, a finding, a difference. */
	no: 1,
	/** Usage or input. */
	usage: 2,
	/** Could not tell. */
	unknown: 3,
	/** Our bug. */
	internal: 10,
} as const

export type ExitCode = (typeof exit)[keyof typeof exit]

/** Ends the command with a message on stderr and a code. */
export class CommandError extends Error {
	readonly exitCode: ExitCode
	/** What to do about it, printed after the message. */
	readonly hint: string | undefined
	constructor(exitCode: ExitCode, message: string, hint?: string) {
		super(message)
		this.exitCode = exitCode
		this.hint = hint
	}
}
