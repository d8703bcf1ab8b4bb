#!/bin/sh
# Builds hello.wasm, or the file named, with clang and the linker that comes with Rust (LLD 19 cannot set the page size).
set -eu
cd "$(dirname "$0")"
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
linker=$sysroot/lib/rustlib/$host/bin/rust-lld
if [ ! -x "$linker" ]; then
  echo "no rust-lld at $linker; install Rust with rustup" >&2
  exit 1
fi
object=$(mktemp)
trap 'rm -f "$object"' EXIT
${CLANG:-clang-19} --target=wasm32 -mcpu=mvp -mmutable-globals -mbulk-memory -msign-ext -mnontrapping-fptoint \
  -std=c11 -Wall -Wextra -Werror -Os -ffreestanding -fvisibility=hidden -c hello.c -o "$object"
"$linker" -flavor wasm "$object" -o "${1:-hello.wasm}" --no-entry --strip-all --gc-sections \
  --stack-first -z stack-size=1024 --page-size=1 --initial-heap=2048 --export=__stack_pointer
# A module is data, though the linker marks it as a program.
chmod 644 "${1:-hello.wasm}"
