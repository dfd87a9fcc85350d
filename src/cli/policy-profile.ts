// --policy-profile: how to read what the API of policies leaves open.

import { isProfileName, type PolicyProfile, policyProfiles } from '../model/policy-profile.ts'
import { CommandError, exit } from './exit.ts'

/** Reads --policy-profile; undefined where it is not given. Throws CommandError (usage) on another word. */
export function profileOf<T extends string | undefined>(
	text: T,
): T extends string ? PolicyProfile : PolicyProfile | undefined
export function profileOf(text: string | undefined): PolicyProfile | undefined {
	if (text === undefined) return undefined
	if (isProfileName(text)) return policyProfiles[text]
	throw new CommandError(
		exit.usage,
		`Unknown policy profile ${JSON.stringify(text)}`,
		`use one of: ${Object.keys(policyProfiles).join(', ')}`,
	)
}
