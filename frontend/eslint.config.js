import { readdirSync } from 'node:fs'
import js from '@eslint/js'
import vue from 'eslint-plugin-vue'
import globals from 'globals'
import ts from 'typescript-eslint'

/**
 * What each room of `src` must not import. `app` and `main.ts` may import everything; `dashboard` is a program of its own,
 * which talks to another server.
 */
const ROOMS = {
  api: ['realtime', 'shared', 'theme', 'features', 'app', 'dashboard'],
  realtime: ['shared', 'theme', 'features', 'app', 'dashboard'],
  shared: ['theme', 'features', 'app', 'dashboard'],
  theme: ['features', 'app', 'dashboard'],
  dashboard: ['api', 'realtime', 'features', 'app'],
}

/** Which other features a feature may import, and what each shows of itself. */
const FEATURES = {
  admin: ['users'],
  campaigns: ['users'],
  chat: ['presence', 'users'],
  notifications: [],
  presence: ['users'],
  users: [],
  wallet: ['users'],
}
const PUBLIC = {
  presence: ['members', 'OnlineList.vue'],
  users: ['names', 'savedForm', 'session'],
}

/** Refuses imports that match, and those that leave a room by a relative path. */
const without = (regex, message) => ({
  'no-restricted-imports': [
    'error',
    {
      patterns: [
        { regex, message },
        { regex: '^\\.\\./', message: "Import from another room by '@/'." },
      ],
    },
  ],
})

const arrows = [
  ...Object.entries(ROOMS).map(([room, above]) => ({
    files: [`src/${room}/**`],
    rules: without(`^@/(${above.join('|')})/`, `${room} knows nothing of the rooms above it.`),
  })),
  ...readdirSync(new URL('src/features', import.meta.url)).map((feature) => {
    const open = (FEATURES[feature] ?? []).flatMap((other) =>
      PUBLIC[other].map((file) => `${other}/${file}$`.replace('.', '\\.')),
    )
    return {
      files: [`src/features/${feature}/**`],
      rules: without(
        `^@/(app/|features/(?!${[`${feature}/`, ...open].join('|')}))`,
        `${feature} may import only what FEATURES and PUBLIC in eslint.config.js list.`,
      ),
    }
  }),
]

export default ts.config(
  { ignores: ['node_modules/**', 'coverage/**'] },
  js.configs.recommended,
  ...ts.configs.strict,
  ...vue.configs['flat/recommended'],
  {
    files: ['**/*.vue'],
    languageOptions: { parserOptions: { parser: ts.parser } },
  },
  {
    files: ['src/**', 'tests/**'],
    languageOptions: { globals: globals.browser },
  },
  {
    rules: {
      'no-undef': 'off',
      'vue/no-v-html': 'error',
      // Layout is prettier's.
      'vue/max-attributes-per-line': 'off',
      'vue/singleline-html-element-content-newline': 'off',
      'vue/html-self-closing': ['error', { html: { void: 'always', normal: 'always', component: 'always' } }],
      'vue/multi-word-component-names': 'off',
      'vue/html-indent': 'off',
      'vue/html-closing-bracket-newline': 'off',
      'vue/first-attribute-linebreak': 'off',
      'vue/multiline-html-element-content-newline': 'off',
      'vue/require-default-prop': 'off',
    },
  },
  ...arrows,
)
