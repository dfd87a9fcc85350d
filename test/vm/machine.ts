// One boot of a small virtual machine by emulation: Debian's kernel, busybox for the first steps, then a program of ours
// on its own copy of Node. Nothing is installed on the host, no rights are needed, nothing is left but the cache folder.

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type ArchiveFile, fileMode, folderMode, linkMode, programMode, writeArchive } from './archive.ts'
import type { Guest } from './packages.ts'
import { collectSources } from './sources.ts'

const repository = join(import.meta.dirname, '..', '..')

const modules = [
	...['virtio_pci', 'virtio_blk', 'dummy', 'veth', 'bridge', 'nf_conntrack_netlink', 'nf_tables', 'nft_compat'],
	...['nft_chain_nat', 'ip_vs', 'ip_vs_rr', 'ip_vs_wrr', 'ip_vs_lc', 'ip_vs_wlc', 'ip_vs_sh', 'ip_vs_dh', 'ip_vs_sed'],
	...['ip_vs_nq', 'ip_vs_mh', 'ip_set_hash_ip', 'ip_set_hash_ipport', 'ip_set_hash_ipportip', 'ip_set_hash_ipportnet'],
	...['ip_set_bitmap_port', 'xt_set', 'xt_comment', 'xt_mark', 'xt_conntrack', 'xt_addrtype', 'xt_MASQUERADE'],
	...['xt_nat', 'xt_statistic', 'xt_recent', 'xt_tcpudp', 'xt_ipvs', 'ipt_REJECT', 'ip6t_REJECT'],
]

export interface Run {
	/** What the program wrote, line by line. */
	readonly lines: readonly string[]
	/** Its exit code; undefined where it did not come to an end in time. */
	readonly code: number | undefined
	readonly seconds: number
}

/** Boots, runs `entry` (a path in the repository) with the arguments, halts. `seconds`: the longest it may take. */
export async function runInGuest(
	guest: Guest,
	entry: string,
	options: { readonly seconds: number; readonly args?: readonly string[]; readonly say?: (line: string) => void },
): Promise<Run> {
	const disk = baseDisk(guest)
	const folder = mkdtempSync(join(tmpdir(), 'podwire-vm-'))
	const initrd = join(folder, 'initrd')
	try {
		writeFileSync(initrd, writeArchive(initialFiles(guest, entry, options.args ?? [])))
		return await boot(guest, { initrd, disk, ...options })
	} finally {
		rmSync(folder, { recursive: true })
	}
}

function boot(
	guest: Guest,
	at: {
		readonly initrd: string
		readonly disk: string
		readonly seconds: number
		readonly say?: (line: string) => void
	},
): Promise<Run> {
	const { root, kernel } = guest
	const libraries = [join(root, 'usr/lib/x86_64-linux-gnu'), join(root, 'lib/x86_64-linux-gnu')].join(':')
	const started = Date.now()
	// By the packages' own loader: whatever C library the host has, they find theirs.
	const child = spawn(
		join(root, 'lib/x86_64-linux-gnu/ld-linux-x86-64.so.2'),
		[
			...['--library-path', libraries, join(root, 'usr/bin/qemu-system-x86_64')],
			...['-L', join(root, 'usr/share/qemu'), '-L', join(root, 'usr/share/seabios')],
			...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '1024', '-nodefaults', '-nographic'],
			...['-no-reboot', '-serial', 'stdio', '-net', 'none'],
			...['-kernel', join(root, `boot/vmlinuz-${kernel}`), '-initrd', at.initrd],
			...['-drive', `file=${at.disk},if=virtio,format=raw,readonly=on`],
			...['-append', 'console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off'],
		],
		{
			stdio: ['ignore', 'pipe', 'pipe'],
			env: { ...process.env, QEMU_MODULE_DIR: join(root, 'usr/lib/x86_64-linux-gnu/qemu') },
		},
	)
	return new Promise((resolve, reject) => {
		const lines: string[] = []
		let rest = ''
		let code: number | undefined
		let inside = false
		const timer = setTimeout(() => child.kill('SIGKILL'), at.seconds * 1000)
		child.stdout.on('data', (data: Buffer) => {
			rest += data.toString()
			const all = rest.split('\n')
			rest = all.pop() ?? ''
			for (const raw of all) {
				const line = raw.replace(/\r$/, '')
				const end = /^podwire-vm: exit (\d+)$/.exec(line)
				if (end !== null) code = Number(end[1])
				if (end !== null) inside = false
				if (inside) lines.push(line)
				// The firmware leaves control characters before it.
				if (line.endsWith('podwire-vm: start')) inside = true
				at.say?.(line)
			}
		})
		child.stderr.on('data', (data: Buffer) => lines.push(...data.toString().trim().split('\n')))
		child.on('error', reject)
		child.on('close', () => {
			clearTimeout(timer)
			resolve({ lines, code, seconds: (Date.now() - started) / 1000 })
		})
	})
}

// --- the first steps: everything in memory ---

function initialFiles(guest: Guest, entry: string, args: readonly string[]): ArchiveFile[] {
	const folders = ['bin', 'dev', 'proc', 'sys', 'mods', 'disk', 'app']
	const files: ArchiveFile[] = folders.map((path) => ({ path, mode: folderMode }))
	files.push({ path: 'bin/busybox', content: readFileSync(join(guest.root, 'bin/busybox')), mode: programMode })
	for (const name of ['sh', 'mount', 'insmod', 'cat', 'echo', 'cp', 'mkdir', 'chroot', 'poweroff']) {
		files.push({ path: `bin/${name}`, content: Buffer.from('busybox'), mode: linkMode })
	}
	const order = moduleFiles(guest)
	for (const [i, path] of order.entries()) {
		files.push({ path: `mods/${i}.ko`, content: readFileSync(path), mode: fileMode })
	}
	const made = new Set<string>()
	const folder = (path: string): void => {
		if (path === '.' || made.has(path)) return
		folder(dirname(path))
		made.add(path)
		files.push({ path: `app/${path}`, mode: folderMode })
	}
	for (const [path, text] of collectSources(entry, repository)) {
		folder(dirname(path))
		files.push({ path: `app/${path}`, content: Buffer.from(text), mode: fileMode })
	}
	files.push({ path: 'app/package.json', content: Buffer.from('{"type":"module"}'), mode: fileMode })
	files.push({ path: 'init', content: Buffer.from(initScript(order.length, entry, args)), mode: programMode })
	return files
}

function initScript(count: number, entry: string, args: readonly string[]): string {
	const program = `/tmp/app/${entry.replace(/\.ts$/, '.js')}`
	const words = [...args, program].map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
	return `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
i=0
while [ $i -lt ${count} ]; do insmod /mods/$i.ko; i=$((i + 1)); done
mount -t ext4 -o ro /dev/vda /disk
mount -t proc proc /disk/proc
mount -t sysfs sys /disk/sys
mount --move /dev /disk/dev
mount -t tmpfs tmp /disk/tmp
mount -t tmpfs run /disk/run
cp -r /app /disk/tmp/app
busybox ln -s /opt/node_modules /disk/tmp/app/node_modules
busybox ip link set lo up
echo "podwire-vm: start"
HOME=/tmp PATH=/usr/sbin:/sbin:/usr/bin:/bin chroot /disk /opt/node --disable-warning=ExperimentalWarning ${words}
echo "podwire-vm: exit $?"
poweroff -f
`
}

/** The modules and what they need, in the order they can be loaded in. */
function moduleFiles({ root, kernel }: Guest): string[] {
	const base = join(root, 'lib/modules', kernel)
	const list = join(base, 'modules.dep')
	if (!existsSync(list)) spawnSync(join(root, 'bin/busybox'), ['depmod', '-b', root, kernel])
	const needs = new Map<string, { path: string; after: string[] }>()
	const nameOf = (path: string) => path.replace(/^.*\//, '').replace('.ko', '').replaceAll('-', '_')
	for (const line of readFileSync(list, 'utf8').split('\n')) {
		const [path = '', after = ''] = line.split(':')
		if (path !== '') needs.set(nameOf(path), { path, after: after.trim().split(/\s+/).filter(Boolean).map(nameOf) })
	}
	const order: string[] = []
	const add = (name: string): void => {
		const found = needs.get(name)
		// Built in.
		if (found === undefined || order.includes(join(base, found.path))) return
		for (const other of found.after.toReversed()) add(other)
		order.push(join(base, found.path))
	}
	for (const name of modules) add(name)
	return order
}

// --- the disk: what does not change from run to run ---

/** An ext4 image with Node, its libraries, koffi, iptables, ipset and ipvsadm; made once. */
function baseDisk({ root, cache }: Guest): string {
	const version = readFileSync(join(repository, 'package-lock.json'))
	const id = createHash('sha256').update(process.version).update(version).digest('hex').slice(0, 12)
	const image = join(cache, `base-${id}.img`)
	if (existsSync(image)) return image
	const tree = mkdtempSync(join(cache, 'tree-'))
	try {
		for (const path of ['proc', 'sys', 'dev', 'tmp', 'run', 'etc', 'opt', 'sbin', 'usr/sbin']) {
			mkdirSync(join(tree, path), { recursive: true })
		}
		cpSync(process.execPath, join(tree, 'opt/node'))
		spawnSync('strip', [join(tree, 'opt/node')])
		const libraries = ['lib/x86_64-linux-gnu', 'usr/lib/x86_64-linux-gnu', 'lib64', 'usr/lib/x86_64-linux-gnu/xtables']
		const wanted =
			/^(?:ld-linux|libc\.|libm\.|libdl|libpthread|libstdc|libgcc_s|libipset|libmnl|libnftnl|libnfnetlink|libnetfilter|libip[46]tc|libxt|libip|libip6t|libpopt|libnl-|libjansson)/
		for (const folder of libraries) copyFolder(join(root, folder), join(tree, folder), wanted)
		mkdirSync(join(tree, 'lib64'), { recursive: true })
		cpSync(join(root, 'lib/x86_64-linux-gnu/ld-linux-x86-64.so.2'), join(tree, 'lib64/ld-linux-x86-64.so.2'), {
			dereference: true,
		})
		copyFolder(join(root, 'usr/sbin'), join(tree, 'usr/sbin'), /^(?:xtables-|ip6?tables-|ipset)/)
		copyFolder(join(root, 'sbin'), join(tree, 'sbin'), /^(?:ipvsadm|ipset)$/)
		for (const name of ['koffi', '@koromix/koffi-linux-x64']) {
			cpSync(join(repository, 'node_modules', name), join(tree, 'opt/node_modules', name), { recursive: true })
		}
		const half = `${image}.half`
		const made = spawnSync('mke2fs', ['-q', '-t', 'ext4', '-O', '^has_journal', '-d', tree, half, '320M'], {
			encoding: 'utf8',
			env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
		})
		if (made.status !== 0) throw new Error(`mke2fs: ${made.error?.message ?? made.stderr}`)
		renameSync(half, image)
		return image
	} finally {
		rmSync(tree, { recursive: true })
	}
}

function copyFolder(from: string, to: string, wanted: RegExp): void {
	if (!existsSync(from)) return
	cpSync(from, to, {
		recursive: true,
		verbatimSymlinks: true,
		filter: (path) => path === from || (dirname(path) === from && wanted.test(path.slice(from.length + 1))),
	})
}
