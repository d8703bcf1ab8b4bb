#!/bin/sh
# Builds the committed modules, tasks.wasm, types.wasm and c/hello.wasm: the same bytes in any folder.
# With an argument, puts them into that folder instead.
set -eu
cd "$(dirname "$0")"
out=${1:-.}
# Cargo does not count the wrapper as a change, so its output has a folder of its own.
RUSTC_WRAPPER="$PWD/rustc-anywhere.sh" cargo build --release --locked --target-dir target/artifact
cp target/artifact/wasm32-unknown-unknown/release/tasks.wasm target/artifact/wasm32-unknown-unknown/release/types.wasm "$out"
mkdir -p "$out/c"
c/build.sh "$(cd "$out/c" && pwd)/hello.wasm"
