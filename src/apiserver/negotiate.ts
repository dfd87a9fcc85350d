// What form of answer the client accepts: JSON, YAML or protobuf; whole objects, Table rows or metadata alone.

import { refuse } from './status.ts'

export interface Accepted {
	readonly media: 'json' | 'yaml' | 'protobuf'
	readonly as: 'object' | 'Table' | 'PartialObjectMetadata'
	/** Aggregated discovery was asked for, in this version. */
	readonly discovery?: 'v2' | 'v2beta1'
}

const plain: Accepted = { media: 'json', as: 'object' }
const cache = new Map<string, Accepted>([['', plain]])

/**
 * Reads an Accept header; the first range we can serve wins (quality values are not weighed: Kubernetes clients order
 * their ranges). Throws Refusal 406 where none can be served.
 */
export function negotiate(accept: string | null): Accepted {
	const header = accept ?? ''
	const known = cache.get(header)
	if (known !== undefined) return known
	const found = read(header)
	// Clients send few different headers; anyone who sends many gets them read each time.
	if (cache.size < 200) cache.set(header, found)
	return found
}

function read(header: string): Accepted {
	let protobuf: Accepted | undefined
	for (const range of header.split(',')) {
		const [type = '', ...parameters] = range.split(';').map((part) => part.trim().toLowerCase())
		const value = (name: string) => parameters.find((p) => p.startsWith(`${name}=`))?.slice(name.length + 1)
		const media =
			type === 'application/json' || type === '*/*' || type === 'application/*'
				? 'json'
				: type === 'application/yaml'
					? 'yaml'
					: type === 'application/vnd.kubernetes.protobuf'
						? 'protobuf'
						: undefined
		if (media === undefined) continue
		const as = value('as')
		const group = value('g')
		const version = value('v')
		let found: Accepted | undefined
		if (as === undefined) found = { media, as: 'object' }
		else if (group === 'meta.k8s.io' && version === 'v1' && as === 'table') found = { media, as: 'Table' }
		else if (group === 'meta.k8s.io' && version === 'v1' && as.startsWith('partialobjectmetadata')) {
			found = { media, as: 'PartialObjectMetadata' }
		} else if (as === 'apigroupdiscoverylist' && (version === 'v2' || version === 'v2beta1')) {
			found = { media, as: 'object', discovery: version }
		}
		if (found === undefined) continue
		// Anything else that is accepted is cheaper for us.
		if (media !== 'protobuf') return found
		protobuf ??= found
	}
	if (protobuf !== undefined && protobuf.as === 'object') return protobuf
	throw refuse(
		'NotAcceptable',
		'only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf',
	)
}
