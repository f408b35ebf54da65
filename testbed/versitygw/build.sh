#!/bin/sh
# Build the S3 server that tests run against, once for this user, and print where it is. Needs Go 1.25; two minutes the first time.
set -eu

version=v1.8.0
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/ecg-anonymizer/versitygw-${version#v}
result=$folder/versitygw

say() { printf '%s\n' "$*" >&2; }
missing() { say "Cannot build versitygw: $*"; exit 1; }

command -v go >/dev/null || missing "go is not on the PATH. Go 1.25 or later: https://go.dev/dl/"
go_version=$(cd "$here" && go env GOVERSION) || missing "Go 1.25 or later is needed: https://go.dev/dl/"

mkdir -p "$folder"
# The second of two builds waits, then finds the work done. Without flock (macOS) both build, and either result is whole.
if command -v flock >/dev/null; then
    exec 9>"$folder/build.lock"
    flock 9
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
# The go.mod beside this script names it as a tool, with the digest of everything it brings.
cd "$here"
say "Building versitygw $version with $go_version. This takes some minutes, once."
CGO_ENABLED=0 go build -ldflags "-X main.Version=$version" -o "$build/versitygw" github.com/versity/versitygw/cmd/versitygw
"$build/versitygw" --version >&2

mv "$build/versitygw" "$result"
printf '%s\n' "$result"
