#!/usr/bin/env node
// The command. In a checkout it runs the TypeScript sources, in the published package the compiled ones.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { launch, root } from './launch.js'

const source = join(root, 'src/cli/main.ts')
launch(existsSync(source) ? source : join(root, 'dist/cli/main.js'), process.argv.slice(2))
