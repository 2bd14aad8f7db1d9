import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { transformWithEsbuild, type Plugin } from 'vite'

const PACKAGE = '../clients/js'

/**
 * Builds the JavaScript helper: one file with its types for the npm package, and a copy that the portal serves as
 * `/smartlink-echo.js`.
 */
export function client(): Plugin {
  let root = ''
  let target = ''
  return {
    name: 'client',
    apply: 'build',
    configResolved(config) {
      root = join(config.root, PACKAGE)
      target = join(config.root, config.build.outDir)
    },
    async closeBundle() {
      const file = join(root, 'src/echo.ts')
      const source = readFileSync(file, 'utf8')
      const { name, version, license } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
      const { code } = await transformWithEsbuild(source, file, {
        minify: true,
        format: 'esm',
        target: 'es2020',
        sourcemap: false,
        banner: `/*! ${name} ${version} ${license} */`,
        tsconfigRaw: {},
      })
      const types = ts.transpileDeclaration(source, { fileName: file, compilerOptions: { strict: true } }).outputText
      mkdirSync(join(root, 'dist'), { recursive: true })
      writeFileSync(join(root, 'dist/echo.js'), code)
      writeFileSync(join(root, 'dist/echo.d.ts'), types)
      writeFileSync(join(target, 'smartlink-echo.js'), code)
    },
  }
}
