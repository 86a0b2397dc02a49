#!/usr/bin/env bash
# package.sh BUILD HERE CC CXX: an installed Quire is usable by a stranger. Installs BUILD to one
# prefix, moves that to another (a package may not remember where it was made), and builds and runs the
# programs in consumer/ against it: C99 and C++20, shared and static, CMake and pkg-config.
set -euo pipefail
build="$1" here="$2" cc="$3" cxx="$4"
command -v pkg-config >/dev/null || { echo "SKIPPED: pkg-config is not installed"; exit 77; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/first" >"$work/log" || { cat "$work/log"; exit 1; }
mv "$work/first" "$work/prefix"

warnings=(-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-qual -Wundef -Werror)
include="$work/prefix/include"
echo "headers alone"
for header in "$include"/quire/*.h; do
  for standard in c99 c11 c17; do
    echo "#include \"quire/${header##*/}\"" |
      "$cc" "-std=$standard" "${warnings[@]}" -Wstrict-prototypes -I"$include" -fsyntax-only -x c -
  done
  for standard in c++11 c++17 c++20; do
    echo "#include \"quire/${header##*/}\"" |
      "$cxx" "-std=$standard" "${warnings[@]}" -I"$include" -fsyntax-only -x c++ -
  done
done
for header in "$include"/quire/*.hpp; do
  [ -e "$header" ] || { echo "no C++ header was installed"; exit 1; }
  echo "#include \"quire/${header##*/}\"" |
    "$cxx" -std=c++20 "${warnings[@]}" -I"$include" -fsyntax-only -x c++ -
done

echo "find_package"
cmake -S "$here/consumer" -B "$work/cmake" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" >"$work/log" || { cat "$work/log"; exit 1; }
cmake --build "$work/cmake" >"$work/log" || { cat "$work/log"; exit 1; }
for program in c_shared cpp_shared c_static cpp_static; do
  echo "  $program"
  "$work/cmake/$program"
done

echo "pkg-config"
PKG_CONFIG_PATH="$(dirname "$(find "$work/prefix" -name quire.pc)")"
export PKG_CONFIG_PATH
libraries="$(pkg-config --variable=libdir quire)"
# Flags are a list of words by definition.
# shellcheck disable=SC2046
"$cc" -std=c99 "${warnings[@]}" $(pkg-config --cflags quire) "$here/consumer/example.c" \
  $(pkg-config --libs quire) -o "$work/c_shared"
# shellcheck disable=SC2046
"$cxx" -std=c++20 "${warnings[@]}" $(pkg-config --cflags quire) "$here/consumer/example.cpp" \
  $(pkg-config --libs quire) -o "$work/cpp_shared"
# shellcheck disable=SC2046
"$cc" -std=c99 "${warnings[@]}" $(pkg-config --cflags quire-static) "$here/consumer/example.c" \
  $(pkg-config --libs quire-static) -o "$work/c_static"
for program in c_shared cpp_shared c_static; do
  echo "  $program"
  LD_LIBRARY_PATH="$libraries" "$work/$program"
done

echo "the README's example"
sed -n '/^```c$/,/^```$/p' "$here/../../README.md" | sed '1d;$d' >"$work/readme.c"
# shellcheck disable=SC2046
"$cc" -std=c99 -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags quire) "$work/readme.c" \
  $(pkg-config --libs quire) -o "$work/readme"
LD_LIBRARY_PATH="$libraries" "$work/readme" | tee "$work/said"
grep -q "^turn 1: 4 of 4 pages are cached$" "$work/said"
if ldd "$work/c_static" | grep -q libquire; then
  echo "the static program needs libquire.so"
  exit 1
fi
