# What plugins/build and plugins/check share: which components there are and a digest of
# everything that decides their bytes, except the compiler. Source this file.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# name, package and output of every committed component
components="cold-standby conclave-cold-standby plugins/built/cold-standby.wasm
executor-match conclave-executor-match plugins/built/executor-match.wasm
hot-standby conclave-hot-standby plugins/built/hot-standby.wasm
oldest-version conclave-oldest-version plugins/built/oldest-version.wasm
preferred conclave-preferred plugins/built/preferred.wasm
spread conclave-spread plugins/built/spread.wasm
hostile conclave-hostile host/policy/tests/fixtures/hostile.wasm
wasi-guest conclave-wasi-guest host/policy/tests/fixtures/wasi-guest.wasm"

# The dependencies of a package with versions and features, as Cargo.lock has them.
dependencies() {
    (cd "$root" && cargo tree --locked --package "$1" --target wasm32-unknown-unknown \
        --edges normal,build --prefix none --format '{p} [{f}]') |
        sed -e 's/ ([^)]*)//g' | LC_ALL=C sort -u
}

# The files that make a component: its crate without the tests, the SDK, the interface, and how
# it is built.
sources() {
    (cd "$root" && find "plugins/$1" plugins/sdk wit plugins/encode plugins/build plugins/digests.bash \
        -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.json' -o -name '*.wit' \
        -o -name build -o -name digests.bash \) \
        -not -path '*/tests/*' -not -name tests.rs | LC_ALL=C sort)
}

# source_digest NAME PACKAGE
source_digest() {
    local listed files
    listed=$(dependencies "$2") || return 1
    files=$(sources "$1") || return 1
    {
        printf '%s\n' "$listed"
        (cd "$root" && while IFS= read -r file; do sha256sum "$file"; done <<<"$files")
    } | sha256sum | cut -d' ' -f1
}

# file_digest FILE
file_digest() {
    sha256sum "$1" | cut -d' ' -f1
}
