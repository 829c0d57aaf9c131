// What the JavaScript of this repository is checked with: what may be wrong, not how it looks.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The linter is installed in the build directory.
const require = createRequire(pathToFileURL(`${process.env.LINTER}/`));
const js = require('@eslint/js');

const names = 'AbortController Buffer URL WebSocket clearInterval clearTimeout console fetch performance process queueMicrotask setImmediate setInterval setTimeout structuredClone TextDecoder TextEncoder';
const readonly = (list) => Object.fromEntries(list.split(' ').map((name) => [name, 'readonly']));

export default [
  js.configs.recommended,
  { files: ['**/*.mjs'], languageOptions: { sourceType: 'module', globals: readonly(names) } },
  { files: ['**/*.cjs'], languageOptions: { sourceType: 'commonjs', globals: readonly(names) } },
  {
    rules: {
      'no-unused-vars': ['error', { ignoreRestSiblings: true, args: 'after-used' }],
      'no-promise-executor-return': 'off',
      'no-constant-condition': ['error', { checkLoops: false }],
      'no-self-compare': 'error',
      'no-template-curly-in-string': 'error',
      'array-callback-return': 'error',
      'consistent-return': 'off',
      eqeqeq: 'error',
      'no-shadow': 'error',
      'no-use-before-define': ['error', { functions: false }],
      'no-var': 'error',
      'prefer-const': 'error',
      'require-atomic-updates': 'off',
    },
  },
];
