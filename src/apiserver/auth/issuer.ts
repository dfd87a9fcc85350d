// Who signs ServiceAccount tokens and with which key, for those who check tokens themselves (OpenID Connect Discovery).

import { json } from '../answer.ts'
import type { Api } from '../api.ts'
import { noSuchResource } from '../status.ts'
import { issuer } from './tokens.ts'

/** /.well-known/openid-configuration and /openid/v1/jwks, their path in parts. */
export function answerIssuer(api: Api, parts: readonly string[]): Response {
	switch (parts.join('/')) {
		case '.well-known/openid-configuration':
			return json(200, {
				issuer,
				jwks_uri: `${issuer}/openid/v1/jwks`,
				response_types_supported: ['id_token'],
				subject_types_supported: ['public'],
				id_token_signing_alg_values_supported: ['ES256'],
			})
		case 'openid/v1/jwks':
			return json(200, api.tokens.keys(), { 'content-type': 'application/jwk-set+json' })
		default:
			throw noSuchResource()
	}
}
