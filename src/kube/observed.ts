// A transport that tells what is asked through it: a program's own use of the API, for its figures.

import type { Transport } from './transport.ts'

export interface ApiRequest {
	readonly method: string
	/** HTTP status; `<error>` where no answer came, as client-go counts it. */
	readonly code: string
	readonly host: string
	/** Until the answer began. */
	readonly seconds: number
}

/** `heard` is called once for each request, when its answer begins. */
export function observed(transport: Transport, heard: (request: ApiRequest) => void): Transport {
	return async (request) => {
		const begun = performance.now()
		const tell = (code: string) => {
			const { host } = new URL(request.url)
			heard({ method: request.method, code, host, seconds: (performance.now() - begun) / 1000 })
		}
		try {
			const response = await transport(request)
			tell(String(response.status))
			return response
		} catch (e) {
			tell('<error>')
			throw e
		}
	}
}
