// PartialObjectMetadata: an object without all but its metadata.

import type { UnknownObject } from '../kube/objects/meta.ts'

export function metadataOnly(object: UnknownObject): UnknownObject {
	return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata }
}
