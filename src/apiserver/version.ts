// The version of the Kubernetes API this server speaks. The build metadata says that it is not Kubernetes' own server.

export const version = {
	major: '1',
	minor: '35',
	emulationMajor: '1',
	emulationMinor: '35',
	minCompatibilityMajor: '1',
	minCompatibilityMinor: '34',
	gitVersion: 'v1.35.0+podwire',
	gitCommit: '',
	gitTreeState: 'clean',
	buildDate: '1970-01-01T00:00:00Z',
	goVersion: '',
	compiler: '',
	platform: `${process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
} as const
