// What each finding about policies is called; the headings of docs/findings.

export const titles: Readonly<Record<string, string>> = {
	PW0015: 'A NetworkPolicy that selects no pod',
	PW0016: 'A policy peer that matches no pod',
	PW0017: 'A policy with the port of the Service',
	PW0018: 'An egress block of Service addresses',
	PW0019: 'Pods that cannot resolve names',
	PW0020: 'An address that cannot be read',
	PW0041: 'A policy rule without effect',
	PW0042: 'Rules that policyTypes leaves out',
	PW0043: 'A port name that nobody has',
	PW0044: 'A policy with the port of the Service, before pods that declare none',
	PW0045: 'Namespaces that do not exist',
	PW0046: 'Pods of another namespace',
	PW0047: 'Either instead of both',
	PW0048: 'Addresses of pods in a policy',
	PW0049: 'Pods that no policy selects',
	PW0050: 'A part of the API that a network may lack',
	PW0051: 'A policy for hostNetwork pods',
	PW0052: 'A connection that is needed and denied',
	PW0053: 'An Ingress whose controller may be kept out',
}
