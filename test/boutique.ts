// Online Boutique: where its manifests are, and what its architecture says of who calls whom.

import { existsSync } from 'node:fs'
import { join } from 'node:path'

const folder = join(import.meta.dirname, '../../shared/data/manifests/online-boutique')

export const application = join(folder, 'kubernetes-manifests.yaml')
/** Its own 13 NetworkPolicies. */
export const policies = join(folder, 'network-policies.yaml')
/** Reason to skip where the manifests are not at hand. */
export const skip: string | false = existsSync(application) ? false : `no ${application}`

/** By the one that is called: its callers, and the port of the pod. The front is for everybody. */
export const callers: Readonly<Record<string, readonly string[]>> = {
	adservice: ['frontend TCP 9555'],
	cartservice: ['checkoutservice TCP 7070', 'frontend TCP 7070'],
	checkoutservice: ['frontend TCP 5050'],
	currencyservice: ['checkoutservice TCP 7000', 'frontend TCP 7000'],
	emailservice: ['checkoutservice TCP 8080'],
	paymentservice: ['checkoutservice TCP 50051'],
	productcatalogservice: ['checkoutservice TCP 3550', 'frontend TCP 3550', 'recommendationservice TCP 3550'],
	recommendationservice: ['frontend TCP 8080'],
	'redis-cart': ['cartservice TCP 6379'],
	shippingservice: ['checkoutservice TCP 50051', 'frontend TCP 50051'],
}

/** Whether a call is one of the application's; a workload always reaches itself. */
export function isMeant(from: string, to: string): boolean {
	return to === 'frontend' || from === to || callers[to]?.some((caller) => caller.startsWith(`${from} `)) === true
}
