#!/bin/sh
# Calls rustc so that what it makes does not depend on the machine.
set -eu
name=
previous=
for arg in "$@"; do
  [ "$previous" = --crate-name ] && name=$arg
  previous=$arg
done
# Cargo asks about the compiler itself.
[ -n "$name" ] || exec "$@"
# Cargo derives the hashes of crates from the path of those outside the workspace, as the SDK is, and they decide the
# order of functions. Each argument goes from the front to the back, so that all have had their turn at the end.
for arg in "$@"; do
  shift
  case $arg in
    metadata=*) arg=metadata=broccoli-$name ;;
  esac
  set -- "$@" "$arg"
done
# A module names the places of panics. Those in the standard library are below /rustc/HASH, but where rustup's component
# rust-src is installed rustc names its folder instead.
sources=$("$1" --print sysroot)/lib/rustlib/src/rust
hash=$("$1" -vV | sed -n 's/^commit-hash: //p')
exec "$@" "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
  "--remap-path-prefix=$(cd "$(dirname "$0")/.." && pwd)=/broccoli" "--remap-path-prefix=$sources=/rustc/$hash"
