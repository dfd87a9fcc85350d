// Which lab a command means, and what is printed where none fits.

import { isFailure } from '../base/failure.ts'
import { labPaths } from '../lab/paths.ts'
import { listLabs } from '../lab/start.ts'
import type { LabStatus } from '../lab/status.ts'
import { CommandError, exit } from './exit.ts'

export const defaultName = 'podwire'

/** The name given by --name or PODWIRE_NAME; checked. */
export function givenName(option: string | undefined): string | undefined {
	const name = option ?? process.env.PODWIRE_NAME
	if (name === undefined || name === '') return undefined
	try {
		return labPaths(name).name
	} catch (e) {
		if (isFailure(e)) throw new CommandError(exit.usage, e.message)
		throw e
	}
}

/** The name of the context in the user's kubeconfig. */
export function contextName(lab: string): string {
	return `podwire-${lab}`
}

/** The lab named, else the only one running. Throws CommandError where there is none, or several. */
export async function findLab(option: string | undefined): Promise<LabStatus> {
	const name = givenName(option)
	const labs = await listLabs()
	const running = labs.filter((l) => l.phase === 'running' || l.phase === 'starting')
	if (name !== undefined) {
		const lab = labs.find((l) => l.name === name)
		if (lab === undefined)
			throw new CommandError(exit.usage, `There is no lab ${JSON.stringify(name)}`, startHint(running, name))
		if (lab.phase === 'crashed') throw crashed(lab)
		return lab
	}
	const only = running[0]
	if (only !== undefined && running.length === 1) return only
	if (running.length > 1) {
		throw new CommandError(
			exit.usage,
			`Several labs run: ${running.map((l) => l.name).join(', ')}`,
			'choose one with --name',
		)
	}
	const left = labs[0]
	if (left !== undefined) throw crashed(left)
	throw new CommandError(
		exit.usage,
		'No lab runs',
		'podwire up starts one; or give manifests with -f, or a cluster with --context',
	)
}

function crashed(lab: LabStatus): CommandError {
	return new CommandError(
		exit.unknown,
		`Lab ${JSON.stringify(lab.name)} is not running: it ended without podwire down`,
		`podwire up --name ${lab.name} goes on with it, podwire down --name ${lab.name} removes it`,
	)
}

function startHint(running: readonly LabStatus[], name: string): string {
	return running.length === 0
		? `podwire up --name ${name} starts it`
		: `running: ${running.map((l) => l.name).join(', ')}`
}
