#!/bin/sh
# Build the InfluxDB 2 server that tests, demos and benchmarks run against, once for this user, and print where it is.
#
# Needs Go 1.25, a stable Rust with cargo, and gcc; some minutes, and about 3 GB of Go and cargo caches the first time. For machines
# that have neither an `influxd` nor docker. The result has no web page: its files are not part of the Go module.
set -eu

version=v2.7.12
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/ecg-anonymizer/influxd-${version#v}
result=$folder/influxd

say() { printf '%s\n' "$*" >&2; }
missing() { say "Cannot build influxd: $*"; exit 1; }

check_tools() {
    command -v gcc >/dev/null || missing "gcc is not on the PATH. Debian and Ubuntu: apt-get install gcc libc6-dev"
    command -v go >/dev/null || missing "go is not on the PATH. Go 1.25 or later: https://go.dev/dl/"
    go_version=$(cd "$here" && go env GOVERSION) || missing "Go 1.25 or later is needed: https://go.dev/dl/"
    minor=$(printf '%s' "$go_version" | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 25 ] || missing "Go 1.25 or later is needed, this is $go_version: https://go.dev/dl/"
    command -v cargo >/dev/null || missing "cargo is not on the PATH. A stable Rust: https://rustup.rs"
    (cd "$here" && cargo --version >/dev/null) || missing "cargo does not start. With rustup: rustup toolchain install stable"
}

# libflux, the Rust half of the server, asks rustup for a compiler of its own age, which is hard to get. The stable one does.
# A cargo that did not come from rustup never looks at this variable.
export RUSTUP_TOOLCHAIN=stable
check_tools

mkdir -p "$folder"
# The second of two builds waits, then finds the work done. Where there is no flock (macOS) both build, each in its own folder:
# slow, but the last rename wins and either result is whole.
if command -v flock >/dev/null; then
    exec 9>"$folder/build.lock"
    flock 9
    # What a killed build left: no other build is running.
    rm -rf "$folder"/build.??????
fi
if [ -x "$result" ]; then
    say "Already built."
    printf '%s\n' "$result"
    exit 0
fi

# Beside the result, because a rename is only atomic within one file system.
build=$(mktemp -d "$folder/build.XXXXXX")
trap 'rm -rf "$build"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
# `go install package@version` refuses, because that module has `replace` lines; the go.mod beside this script names it as a tool.
cd "$here"
say "Building influxd $version with $go_version and $(cargo --version). This takes some minutes, once."

# Go asks pkg-config for libflux; this one, made for that, answers by building libflux with cargo, and passes all else on to the
# next pkg-config on the PATH. On the PATH rather than in PKG_CONFIG, which may not hold spaces.
unset PKG_CONFIG
go build -o "$build/pkg-config" github.com/influxdata/pkg-config
export PATH="$build:$PATH"

# libflux turns every warning into an error, and newer compilers warn about more.
printf '#!/bin/sh\nexec "$@" --cap-lints warn\n' >"$build/rustc-wrapper"
chmod +x "$build/rustc-wrapper"
export RUSTC_WORKSPACE_WRAPPER="$build/rustc-wrapper"

# libflux and SQLite are C to Go. The tags are those of the published server. Without the name, `influxd version` says "dev".
CGO_ENABLED=1 go build -tags sqlite_foreign_keys,sqlite_json -ldflags "-X main.version=$version" \
    -o "$build/influxd" github.com/influxdata/influxdb/v2/cmd/influxd
"$build/influxd" version >&2

mv "$build/influxd" "$result"
printf '%s\n' "$result"
