#!/usr/bin/env node
// Runs a TypeScript file of this repository with Node 24, whatever Node started this one.
import { launch } from './launch.js'

const [file, ...args] = process.argv.slice(2)
launch(file, args)
