#!/usr/bin/env bash
# exports.sh LIBQUIRE QUIRE_H: libquire exports exactly the functions that quire.h declares. No malloc,
# no operator new, nothing of the C++ library or of a dependency gets out into a host program.
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
echo "$(wc -l <<<"$declared") functions"
