// The few type records (BTF) a socket storage map needs: a 32-bit key and a value of so many bytes. Source:
// Documentation/bpf/btf.rst.

const MAGIC = 0xeb9f
const KIND_INT = 1
const KIND_STRUCT = 4

/** Ids of the two types in the blob. */
export const storageTypes = { key: 1, value: 2 } as const

/** A blob with the types `int` (storageTypes.key) and an opaque structure of `bytes` bytes (storageTypes.value). */
export function storageBtf(bytes: number): Uint8Array<ArrayBuffer> {
	const strings = Buffer.from('\0int\0value\0', 'latin1')
	const types = Buffer.alloc(16 + 12)
	types.writeUInt32LE(1, 0)
	types.writeUInt32LE(KIND_INT << 24, 4)
	types.writeUInt32LE(4, 8)
	types.writeUInt32LE((1 << 24) | 32, 12)
	types.writeUInt32LE(5, 16)
	types.writeUInt32LE(KIND_STRUCT << 24, 20)
	types.writeUInt32LE(bytes, 24)
	const header = Buffer.alloc(24)
	header.writeUInt16LE(MAGIC, 0)
	header.writeUInt8(1, 2)
	header.writeUInt32LE(24, 4)
	header.writeUInt32LE(0, 8)
	header.writeUInt32LE(types.length, 12)
	header.writeUInt32LE(types.length, 16)
	header.writeUInt32LE(strings.length, 20)
	const blob = new Uint8Array(new ArrayBuffer(header.length + types.length + strings.length))
	blob.set(header, 0)
	blob.set(types, header.length)
	blob.set(strings, header.length + types.length)
	return blob
}
