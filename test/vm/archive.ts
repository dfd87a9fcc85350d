// A cpio archive in the "newc" form, as the kernel unpacks it at boot (Documentation/driver-api/early-userspace).

export interface ArchiveFile {
	/** Without a leading slash. */
	readonly path: string
	/** A folder has no content; a link has where it leads. */
	readonly content?: Buffer
	readonly mode: number
}

export const folderMode = 0o040755
export const programMode = 0o100755
export const fileMode = 0o100644
export const linkMode = 0o120777

/** Folders come before what is in them. */
export function writeArchive(files: readonly ArchiveFile[]): Buffer {
	const parts: Buffer[] = []
	for (const [i, file] of [...files, { path: 'TRAILER!!!', mode: 0 }].entries()) {
		const content = 'content' in file ? (file.content ?? Buffer.alloc(0)) : Buffer.alloc(0)
		const name = Buffer.from(`${file.path}\0`)
		const links = (file.mode & 0o170000) === 0o040000 ? 2 : 1
		const numbers = [i + 1, file.mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, name.length, 0]
		const header = Buffer.from(`070701${numbers.map((n) => n.toString(16).padStart(8, '0')).join('')}`)
		parts.push(pad(Buffer.concat([header, name])), pad(content))
	}
	return Buffer.concat(parts)
}

function pad(bytes: Buffer): Buffer {
	return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)])
}
