// Volumes in the private mount namespace of a program inside a pod: a shell script that binds each source to its mount
// path. Where the path is not there, the nearest folder above it is covered by a layer of its own, so nothing is ever
// made in the host's files.

import { existsSync, realpathSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

export interface PodMount {
	readonly source: string
	/** Absolute. */
	readonly target: string
	readonly readOnly: boolean
}

/** Functions of the script. All paths of its own are relative: what is covered later must stay reachable. */
const functions = `
fail() { echo "podwire: $1" >&2; exit 126; }
# Entries of folder $1 appear in folder $2.
copy() {
	for e in "$1"/* "$1"/.[!.]*; do
		n=\${e##*/}
		if [ -L "$e" ]; then cp -P "$e" "$2/$n"
		elif [ -d "$e" ]; then mkdir "$2/$n" && mount -c --rbind "$e" "$2/$n"
		elif [ -e "$e" ]; then : >"$2/$n" && mount -c --bind "$e" "$2/$n"
		fi || fail "cannot show $e"
	done
}
# Folder $2 can be written to from here on, by a layer over it with number $1.
widen() {
	mkdir "u$1" "w$1"
	mount -c -t overlay -o "lowerdir=$2,upperdir=u$1,workdir=w$1" podwire "$2" 2>/dev/null && return
	mkdir "l$1"
	copy "$2" "l$1"
	mount -c --rbind "l$1" "$2" || fail "cannot make mount points in $2"
}
# Keeps source $2 as v$1.
hold() {
	if [ -d "$2" ]; then mkdir "v$1"; else : >"v$1"; fi
	mount -c --bind "$2" "v$1" || fail "cannot mount $2"
}
# Puts v$1 at $2, with options $3.
place() {
	if [ ! -e "$2" ]; then
		mkdir -p "\${2%/*}"
		if [ -d "v$1" ]; then mkdir -p "$2"; else : >"$2"; fi
	fi
	mount -c --bind "v$1" "$2" || fail "cannot mount a volume at $2"
	[ -z "$3" ] || mount -c -o "remount,bind,$3" "$2" || fail "cannot mount $2 read-only"
}
`

/**
 * `scratch`: an existing empty folder. The script goes on as `exec "$@"` in the tree it made; '' where there is nothing
 * to mount.
 */
export function mountScript(mounts: readonly PodMount[], scratch: string): string {
	if (mounts.length === 0) return ''
	const lines: string[] = []
	const widened = new Set<string>()
	// A mount inside another one comes after it.
	const places = mounts
		.map((mount, i) => ({ ...mount, i, ...placeOf(mount.target) }))
		.sort((a, b) => a.target.split('/').length - b.target.split('/').length)
	const direct = places.filter((p) => p.above !== '/')
	const atRoot = places.filter((p) => p.above === '/')
	const within = (folder: string) => direct.some((p) => folder === p.path || folder.startsWith(`${p.path}/`))
	for (const { above } of [...direct].sort((a, b) => (a.above ?? '').length - (b.above ?? '').length)) {
		if (above === undefined || within(above)) continue
		if (![...widened].some((w) => above === w || above.startsWith(`${w}/`))) widened.add(above)
	}
	for (const { i, source } of places) lines.push(`hold ${i} ${quote(source)}`)
	for (const [n, folder] of [...widened].entries()) lines.push(`widen ${n} ${quote(folder)}`)
	for (const p of direct) lines.push(`place ${p.i} ${quote(p.path)} ${p.readOnly ? 'ro' : "''"}`)
	if (atRoot.length > 0) {
		// The tree itself has to be another: one whose first level is ours.
		lines.push('mkdir root', "copy '' root")
		for (const p of atRoot) lines.push(`place ${p.i} ${quote(`root${p.path}`)} ${p.readOnly ? 'ro' : "''"}`)
	}
	return `${functions}
mount -t tmpfs -o mode=755 podwire ${quote(scratch)} && cd ${quote(scratch)} || fail 'cannot make a place for volumes'
${lines.join('\n')}
${atRoot.length > 0 ? 'exec chroot root "$@"' : 'exec "$@"'}
`
}

/** The path without symbolic links, and the nearest folder that exists where it does not. */
function placeOf(target: string): { readonly path: string; readonly above: string | undefined } {
	if (existsSync(target)) return { path: realpathSync(target), above: undefined }
	let above = dirname(target)
	while (!existsSync(above) || !statSync(above).isDirectory()) above = dirname(above)
	const real = realpathSync(above)
	return { path: join(real, relative(above, target)), above: real }
}

function quote(text: string): string {
	return `'${text.replaceAll("'", "'\\''")}'`
}
