// Binds claims to volumes, makes volumes for claims of the folder class, keeps claims while pods use them, and lets go
// of what nobody claims any more. What kube-controller-manager and a local provisioner do.

import { isAlreadyExists } from '../../kube/answer.ts'
import { persistentVolumeClaims, persistentVolumes, pods, storageClasses } from '../../kube/kinds.ts'
import { keyOf, namespacedKey } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import type { PersistentVolumeClaim } from '../../kube/objects/storage.ts'
import { type Cluster, type Controller, createController, type Turn, writeStatus } from '../controller.ts'
import {
	bindClaim,
	bindVolume,
	boundStatus,
	claimProtection,
	folderProvisioner,
	planClaim,
	planVolume,
} from './plan.ts'

const component = 'persistentvolume-controller'

export function volumeControllers(cluster: Cluster): readonly Controller[] {
	const { views } = cluster
	const claimView = views.of(persistentVolumeClaims)
	const volumeView = views.of(persistentVolumes)
	const classView = views.of(storageClasses)
	const usersOf = views.of(pods).index('claims', claimsOf)

	const claims = createController(cluster, {
		name: 'persistentvolumeclaim-controller',
		async reconcile(key, turn) {
			const claim = claimView.get(key)
			if (claim === undefined) return undefined
			const finalizers = claim.metadata.finalizers ?? []
			if (claim.metadata.deletionTimestamp !== undefined) {
				if (!finalizers.includes(claimProtection) || isUsed(key)) return undefined
				const rest = finalizers.filter((f) => f !== claimProtection)
				await turn.patch(persistentVolumeClaims, key, { metadata: { finalizers: rest } })
				return undefined
			}
			if (!finalizers.includes(claimProtection)) {
				await turn.patch(persistentVolumeClaims, key, { metadata: { finalizers: [...finalizers, claimProtection] } })
			}
			await bind(claim, key, turn)
			return undefined
		},
	})

	function isUsed(key: string): boolean {
		for (const pod of usersOf.get(key)) {
			const { phase } = pod.status ?? {}
			if (phase !== 'Succeeded' && phase !== 'Failed') return true
		}
		return false
	}

	async function bind(claim: PersistentVolumeClaim, key: string, turn: Turn): Promise<void> {
		const plan = planClaim(claim, volumeView.values(), [...classView.values()])
		switch (plan.do) {
			case 'class':
				await turn.patch(persistentVolumeClaims, key, { spec: { storageClassName: plan.name } })
				return
			case 'provision': {
				try {
					const volume = await turn.create(persistentVolumes, plan.volume)
					const message = `Successfully provisioned volume ${volume.metadata.name}`
					cluster.recorder.record(folderProvisioner, claim, 'Normal', 'ProvisioningSucceeded', message)
				} catch (e) {
					if (!isAlreadyExists(e)) throw e
				}
				return
			}
			case 'bind': {
				const { volume } = plan
				const toVolume = bindVolume(volume, claim)
				if (toVolume !== undefined) await turn.patch(persistentVolumes, volume.metadata.name, toVolume)
				const toClaim = bindClaim(claim, volume)
				const now = toClaim === undefined ? claim : await turn.patch(persistentVolumeClaims, key, toClaim)
				if (now.status?.phase !== 'Bound') {
					await turn.patch(persistentVolumeClaims, key, { status: boundStatus(volume) }, { subresource: 'status' })
				}
				return
			}
			case 'wait': {
				const type = plan.reason === 'ProvisioningFailed' ? 'Warning' : 'Normal'
				cluster.recorder.record(component, claim, type, plan.reason, plan.message)
				return
			}
			case 'lose': {
				const message = 'Bound claim has lost its PersistentVolume. Data on the volume is lost!'
				cluster.recorder.record(component, claim, 'Warning', 'ClaimLost', message)
				await turn.patch(persistentVolumeClaims, key, { status: { phase: 'Lost' } }, { subresource: 'status' })
				return
			}
			default: {
				const never: never = plan
				throw new Error(`No such plan: ${JSON.stringify(never)}`)
			}
		}
	}

	const volumes = createController(cluster, {
		name: 'persistentvolume-controller',
		async reconcile(name, turn) {
			const volume = volumeView.get(name)
			if (volume === undefined || volume.metadata.deletionTimestamp !== undefined) return undefined
			const to = volume.spec?.claimRef
			const key = to === undefined ? undefined : namespacedKey(to.namespace ?? '', to.name ?? '')
			let claim = key === undefined ? undefined : claimView.get(key)
			// Data is at stake: the API is asked, not the copy alone.
			if (to?.uid && claim?.metadata.uid !== to.uid)
				claim = await cluster.client.find(persistentVolumeClaims, key as string)
			const { phase, remove } = planVolume(volume, claim)
			if (remove) await turn.delete(persistentVolumes, volume)
			else await writeStatus(turn, persistentVolumes, volume, { ...volume.status, phase })
			return undefined
		},
	})

	claimView.onChange((key, before, after) => {
		claims.queue.add(key)
		const volume = (after ?? before)?.spec?.volumeName
		if (volume !== undefined && volume !== '') volumes.queue.add(volume)
	})
	volumeView.onChange((name, before, after) => {
		volumes.queue.add(name)
		const to = (after ?? before)?.spec?.claimRef
		if (to?.name !== undefined) claims.queue.add(namespacedKey(to.namespace ?? '', to.name))
		// A volume anybody may take.
		else for (const claim of claimView.values()) if (claim.status?.phase !== 'Bound') claims.queue.add(keyOf(claim))
	})
	classView.onChange(() => {
		for (const claim of claimView.values()) if (claim.status?.phase !== 'Bound') claims.queue.add(keyOf(claim))
	})
	views.of(pods).onChange((_, before, after) => {
		for (const key of [
			...(before === undefined ? [] : claimsOf(before)),
			...(after === undefined ? [] : claimsOf(after)),
		]) {
			if (claimView.get(key)?.metadata.deletionTimestamp !== undefined) claims.queue.add(key)
		}
	})
	return [claims, volumes]
}

function claimsOf(pod: Pod): string[] {
	return (pod.spec?.volumes ?? []).flatMap(({ persistentVolumeClaim: claim }) =>
		claim === undefined ? [] : [namespacedKey(pod.metadata.namespace ?? '', claim.claimName)],
	)
}
