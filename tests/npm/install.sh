# shellcheck shell=sh
# Sourced by tests that run HPKV's clients from npm: installs them, at the exact versions in package-lock.json, below the build
# directory, once for each lock file, and changes to where they are. Skips the test where that can't be done.
for tool in node npm; do
	command -v "$tool" >/dev/null || { echo "skipped: there is no $tool"; exit 77; }
done
mkdir -p "$BUILDDIR/tests/npm/clients"
cd "$BUILDDIR/tests/npm/clients" || exit 1
exec 9>lock
flock 9 # another test may be installing them
if ! cmp -s "$SRCDIR/tests/npm/package-lock.json" node_modules/installed.json; then
	rm -rf node_modules
	cp "$SRCDIR/tests/npm/package.json" "$SRCDIR/tests/npm/package-lock.json" .
	chmod u+w package.json package-lock.json
	npm ci --prefer-offline --ignore-scripts --no-audit --no-fund --loglevel=error 2>npm.log 9>&- || {
		cat npm.log
		grep -qE 'code (EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT)' npm.log || exit 1
		echo "skipped: npm can't reach its registry"
		exit 77
	}
	cp package-lock.json node_modules/installed.json
fi
exec 9>&-

# bring FILE... - copies them here, as Node.js looks for imports from the directory of a script. Each is replaced at once, since
# another test may be reading the former copy.
bring() {
	for file in "$@"; do
		cp "$file" "new.$$"
		mv -f "new.$$" "${file##*/}"
	done
}
