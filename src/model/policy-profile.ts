// Corners of NetworkPolicy that the API leaves open and implementations fill differently, by name. The default is what
// this project's own data plane does; the others say what the same manifests do elsewhere.

export type ProfileName = 'default' | 'calico-like' | 'cilium-like'

export interface PolicyProfile {
	readonly name: ProfileName
	/** Whether an ipBlock (or `networks`) means pods by their addresses too, or only what lies outside of the cluster. */
	readonly blocksMatchPods: boolean
	/** Whether it means nodes, and hostNetwork pods with them, by their addresses. */
	readonly blocksMatchNodes: boolean
	/** A pod that reaches itself through a Service: always, or as its policies say. (By its own address it never leaves.) */
	readonly hairpin: 'allowed' | 'by-policy'
	/** Connections that a policy no longer allows: they go on until they end, or are cut at the next packet. */
	readonly established: 'kept' | 'cut'
}

export const policyProfiles: Readonly<Record<ProfileName, PolicyProfile>> = {
	default: {
		name: 'default',
		blocksMatchPods: true,
		blocksMatchNodes: true,
		hairpin: 'allowed',
		established: 'kept',
	},
	'calico-like': {
		name: 'calico-like',
		blocksMatchPods: true,
		blocksMatchNodes: true,
		hairpin: 'by-policy',
		established: 'kept',
	},
	// Cilium decides by identity: an address block is for whoever has none, which pods and nodes do.
	'cilium-like': {
		name: 'cilium-like',
		blocksMatchPods: false,
		blocksMatchNodes: false,
		hairpin: 'allowed',
		established: 'cut',
	},
}

export function isProfileName(text: string): text is ProfileName {
	return Object.hasOwn(policyProfiles, text)
}
