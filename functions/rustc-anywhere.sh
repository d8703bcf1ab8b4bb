#!/bin/sh
# Calls rustc with crate hashes that do not depend on the folder. Cargo derives them from the path
# of crates outside the workspace, as the SDK is, and they decide the order of functions.
set -eu
name=
previous=
for arg in "$@"; do
  [ "$previous" = --crate-name ] && name=$arg
  previous=$arg
done
# Each argument goes from the front to the back, so that all have had their turn at the end.
for arg in "$@"; do
  shift
  case $arg in
    metadata=*) arg=metadata=broccoli-$name ;;
  esac
  set -- "$@" "$arg"
done
exec "$@"
