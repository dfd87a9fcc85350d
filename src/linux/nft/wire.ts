// Numbers of the nf_tables netlink interface (linux/netfilter/nf_tables.h, nfnetlink.h): kernel ABI, never changes.

export const NFNL_SUBSYS_NFTABLES = 10
export const NFNL_MSG_BATCH_BEGIN = 0x10
export const NFNL_MSG_BATCH_END = 0x11

export const MSG = {
	NEWTABLE: 0,
	GETTABLE: 1,
	DELTABLE: 2,
	NEWCHAIN: 3,
	GETCHAIN: 4,
	DELCHAIN: 5,
	NEWRULE: 6,
	GETRULE: 7,
	DELRULE: 8,
	NEWSET: 9,
	GETSET: 10,
	DELSET: 11,
	NEWSETELEM: 12,
	GETSETELEM: 13,
	DELSETELEM: 14,
	GETGEN: 16,
	NEWOBJ: 18,
	GETOBJ: 19,
} as const

/** Message type of an nf_tables message. */
export function nftType(message: number): number {
	return (NFNL_SUBSYS_NFTABLES << 8) | message
}

export const TABLE = { NAME: 1, FLAGS: 2, USE: 3, HANDLE: 4, USERDATA: 6, OWNER: 7 } as const
export const CHAIN = { TABLE: 1, HANDLE: 2, NAME: 3, HOOK: 4, POLICY: 5, TYPE: 7, FLAGS: 10, USERDATA: 12 } as const
export const HOOK = { NUM: 1, PRIORITY: 2, DEV: 3 } as const
export const RULE = { TABLE: 1, CHAIN: 2, HANDLE: 3, EXPRESSIONS: 4, POSITION: 6, USERDATA: 7 } as const
export const SET = {
	TABLE: 1,
	NAME: 2,
	FLAGS: 3,
	KEY_TYPE: 4,
	KEY_LEN: 5,
	DATA_TYPE: 6,
	DATA_LEN: 7,
	POLICY: 8,
	DESC: 9,
	ID: 10,
	TIMEOUT: 11,
	GC_INTERVAL: 12,
	USERDATA: 13,
	OBJ_TYPE: 15,
	HANDLE: 16,
} as const
export const DESC = { SIZE: 1, CONCAT: 2, FIELD_LEN: 1 } as const
export const SET_FLAG = {
	ANONYMOUS: 1,
	CONSTANT: 2,
	INTERVAL: 4,
	MAP: 8,
	TIMEOUT: 0x10,
	EVAL: 0x20,
	OBJECT: 0x40,
	CONCAT: 0x80,
} as const
export const ELEMENTS = { TABLE: 1, SET: 2, ELEMENTS: 3, SET_ID: 4 } as const
export const ELEMENT = {
	KEY: 1,
	DATA: 2,
	FLAGS: 3,
	TIMEOUT: 4,
	EXPIRATION: 5,
	USERDATA: 6,
	OBJREF: 9,
	KEY_END: 10,
} as const
export const ELEMENT_FLAG = { INTERVAL_END: 1, CATCHALL: 2 } as const
export const DATA = { VALUE: 1, VERDICT: 2 } as const
export const VERDICT = { CODE: 1, CHAIN: 2 } as const
export const LIST_ELEM = 1
export const EXPR = { NAME: 1, DATA: 2 } as const
/** NFTA_SET_DATA_TYPE of a verdict map. */
export const DATA_VERDICT = 0xffffff00

/** Verdict codes of nf_tables and netfilter. */
export const verdictCodes = {
	drop: 0,
	accept: 1,
	queue: 3,
	continue: -1,
	break: -2,
	jump: -3,
	goto: -4,
	return: -5,
} as const
export type VerdictName = keyof typeof verdictCodes

export function verdictName(code: number): VerdictName {
	// NF_QUEUE carries its queue number in the upper half.
	for (const [name, value] of Object.entries(verdictCodes)) {
		if (value === code || (name === 'queue' && code > 0 && (code & 0xff) === 3)) return name as VerdictName
	}
	throw new Error(`unknown nf_tables verdict ${code}`)
}

/** Address families of tables. */
export const families = { inet: 1, ip: 2, arp: 3, netdev: 5, bridge: 7, ip6: 10 } as const
export type Family = keyof typeof families

export function familyName(number: number): Family {
	for (const [name, value] of Object.entries(families)) if (value === number) return name as Family
	throw new Error(`unknown nf_tables family ${number}`)
}

/** Hooks of the IP families by number (enum nf_inet_hooks); netdev has its own. */
export const hookNames = ['prerouting', 'input', 'forward', 'output', 'postrouting', 'ingress'] as const

/**
 * The kernel numbers registers twice: 1 to 4 are 16 bytes each, 8 to 23 the same memory in words of 4 bytes.
 * Here a register is a word, 0 to 15; the kernel's own dumps use this same canonical mapping.
 */
export function registerNumber(word: number): number {
	return word % 4 === 0 ? 1 + word / 4 : 8 + word
}

export function registerWord(number: number): number {
	return number >= 8 ? number - 8 : (number - 1) * 4
}

/** Register 0: the verdict. */
export const VERDICT_REGISTER = 0
