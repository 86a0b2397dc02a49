#!/usr/bin/env bash
# exports.sh LIBQUIRE QUIRE_H: libquire exports exactly the functions that quire.h declares. No malloc,
# no operator new, nothing of the C++ library or of a dependency gets out into a host program. Nor does
# it bring along a library that exports these: wherever libquire is loaded first, they would be the host's.
set -euo pipefail
library="$1" header="$2"

exported="$(nm -D --defined-only "$library" | awk '{ print $NF }' | sed 's/@.*//' | sort -u)"
foreign="$(grep -v '^quire_' <<<"$exported" || true)"
if [ -n "$foreign" ]; then
  echo "exported, and not of the C API:"
  head -20 <<<"$foreign"
  exit 1
fi

# QUIRE_API declarations may break after the type: the name is what stands before the first "(".
declared="$(sed 's/^#.*//' "$header" | tr '\n' ' ' | grep -o 'QUIRE_API [^(;]*(' | grep -o 'quire_[a-z0-9_]* *($' |
  tr -d ' (' | sort -u)"
[ -n "$declared" ] || { echo "no QUIRE_API function was found in $header"; exit 1; }
if [ "$declared" != "$exported" ]; then
  echo "declared (<) and exported (>) differ:"
  diff <(echo "$declared") <(echo "$exported") | grep '^[<>]'
  exit 1
fi

needed="$(ldd "$library" | awk '$2 == "=>" { print $3 } NF == 2 && $1 ~ /^\// { print $1 }')"
[ -n "$needed" ] || { echo "ldd names no library for $library"; exit 1; }
for dependency in $needed; do
  case "$dependency" in */libc.so.* | */libstdc++.so.* | */ld-linux* | */lib?san.so.*) continue ;; esac
  brings="$(nm -D --defined-only "$dependency" | awk '{ print $NF }' | sed 's/@.*//' |
    grep -xE 'malloc|free|calloc|realloc|_Zn[wa]m|_Zd[la]Pv' || true)"
  [ -z "$brings" ] || { echo "$library needs $dependency, which exports:" "$brings"; exit 1; }
done
echo "$(wc -l <<<"$declared") functions; $(wc -l <<<"$needed") libraries, none with an allocator"
