// How a lab enforces policies where their API leaves a choice: kept, so that a daemon started again goes on with the
// same, and changed at any time.

import { readFileSync } from 'node:fs'
import { isProfileName, type PolicyProfile, type ProfileName, policyProfiles } from '../model/policy-profile.ts'
import { keepLine } from './kept.ts'
import type { LabPaths } from './paths.ts'
import type { PolicyStatus } from './status.ts'

/** What a user asks for; what is absent stays as it is. */
export interface PolicyChoice {
	readonly profile?: ProfileName
	readonly cutEstablished?: boolean
}

export interface PolicySettings {
	readonly profile: ProfileName
	/** Said by the user. Absent: as the profile does. */
	readonly cutEstablished?: boolean
}

export const defaultPolicySettings: PolicySettings = { profile: 'default' }

/** What a data plane is told. */
export interface PolicyMode {
	readonly profile: PolicyProfile
	/** A connection that policies no longer allow ends with its next packet. */
	readonly cutEstablished: boolean
}

export function policyModeOf({ profile, cutEstablished }: PolicySettings): PolicyMode {
	const meant = policyProfiles[profile]
	return { profile: meant, cutEstablished: cutEstablished ?? meant.established === 'cut' }
}

export function policyStatusOf(settings: PolicySettings): PolicyStatus {
	const { profile, cutEstablished } = policyModeOf(settings)
	return { profile: profile.name, cutEstablished }
}

/** The settings of a lab; of a new one the defaults. */
export function readPolicySettings(paths: LabPaths): PolicySettings {
	try {
		const { profile = '', cutEstablished } = JSON.parse(readFileSync(paths.policies, 'utf8')) as PolicyChoice
		if (!isProfileName(profile)) return defaultPolicySettings
		return { profile, ...(typeof cutEstablished === 'boolean' ? { cutEstablished } : {}) }
	} catch {
		// Never chosen.
		return defaultPolicySettings
	}
}

/** The settings with what is asked for in place of what was. Throws Failure CannotWrite. */
export function settlePolicySettings(paths: LabPaths, choice: PolicyChoice): PolicySettings {
	const kept = readPolicySettings(paths)
	const settings = { ...kept, ...choice }
	if (settings.profile !== kept.profile || settings.cutEstablished !== kept.cutEstablished)
		keepLine(paths.policies, JSON.stringify(settings))
	return settings
}
