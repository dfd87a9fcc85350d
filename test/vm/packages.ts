// A kernel with IPVS and an emulator to run it, from Debian's archive: packages fetched by apt-get and unpacked into a
// cache folder, never installed. What is there already is used as it is.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

/** The emulator and what it links beside libc and glib; the programs the tests look over our shoulder with. */
const packages = [
	...[
		'qemu-system-x86',
		'qemu-system-common',
		'qemu-system-data',
		'seabios',
		'ipxe-qemu',
		'busybox-static',
		'ipvsadm',
		'ipset',
		'iptables',
	],
	...['libipset13', 'libmnl0', 'libnftnl11', 'libnfnetlink0', 'libnetfilter-conntrack3', 'libip4tc2', 'libip6tc2'],
	...['libxtables12', 'libpopt0', 'libnl-3-200', 'libnl-genl-3-200', 'libnl-route-3-200', 'libaio1', 'libbpf1'],
	...['libcapstone4', 'libfdt1', 'libfuse3-3', 'libgmp10', 'libgnutls30', 'libhogweed6', 'libibverbs1', 'libelf1'],
	...['libjpeg62-turbo', 'libnettle8', 'libnuma1', 'libpixman-1-0', 'libpmem1', 'libndctl6', 'libdaxctl1', 'libkmod2'],
	...['libpng16-16', 'librdmacm1', 'libsasl2-2', 'libseccomp2', 'libslirp0', 'libudev1', 'liburing2', 'libvdeplug2'],
	...['libzstd1', 'libglib2.0-0', 'zlib1g', 'libpcre2-8-0', 'libp11-kit0', 'libidn2-0', 'libunistring2', 'libtasn1-6'],
	...['libffi8', 'libdb5.3', 'liblzma5', 'libssl3', 'libc6', 'libstdc++6', 'libgcc-s1', 'libjansson4'],
]

export interface Guest {
	/** The unpacked packages: `usr/bin/qemu-system-x86_64`, `boot/vmlinuz-…`, `lib/modules/…`. */
	readonly root: string
	/** `6.1.0-56-cloud-amd64` */
	readonly kernel: string
	/** Where to keep what is made of them. */
	readonly cache: string
}

/** The folder, filled; or why it cannot be. PODWIRE_VM_CACHE names another folder than ~/.cache/podwire/vm. */
export function fetchGuest(): Guest | { readonly unusable: string } {
	if (process.platform !== 'linux' || process.arch !== 'x64')
		return { unusable: 'the virtual machine is for Linux on x86-64' }
	const cache = process.env.PODWIRE_VM_CACHE ?? join(homedir(), '.cache', 'podwire', 'vm')
	// Another list of packages is another folder.
	const root = join(cache, `root-${createHash('sha256').update(packages.join()).digest('hex').slice(0, 8)}`)
	if (!existsSync(root)) {
		const why = fill(cache, root)
		if (why !== undefined) return { unusable: why }
	}
	const [kernel] = readdirSync(join(root, 'lib', 'modules'))
	if (kernel === undefined) return { unusable: `${root} has no kernel` }
	return { root, kernel, cache }
}

function fill(cache: string, root: string): string | undefined {
	for (const tool of ['apt-get', 'apt-cache', 'dpkg']) {
		if (spawnSync(tool, ['--version']).error !== undefined) return `${tool} is not here: the packages are Debian's`
	}
	const image = /^\s*Depends: (linux-image-\S+)/m.exec(
		spawnSync('apt-cache', ['depends', 'linux-image-cloud-amd64'], { encoding: 'utf8' }).stdout,
	)?.[1]
	if (image === undefined) return 'apt knows no linux-image-cloud-amd64 (run apt-get update)'
	const debs = join(cache, 'debs')
	const unpacked = join(cache, 'unpacking')
	rmSync(unpacked, { recursive: true, force: true })
	mkdirSync(debs, { recursive: true })
	mkdirSync(unpacked)
	const got = spawnSync('apt-get', ['download', image, ...packages], { cwd: debs, encoding: 'utf8' })
	if (got.status !== 0) return `apt-get cannot download the packages: ${got.stderr.trim().split('\n').at(-1)}`
	for (const deb of readdirSync(debs)) {
		const done = spawnSync('dpkg', ['-x', join(debs, deb), unpacked], { encoding: 'utf8' })
		if (done.status !== 0) return `dpkg cannot unpack ${deb}: ${done.stderr.trim()}`
	}
	rmSync(debs, { recursive: true })
	// Complete or not there.
	renameSync(unpacked, root)
	return undefined
}
