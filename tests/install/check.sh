#!/bin/sh
# check.sh SOURCE BUILD MAKE_MODEL CC CXX NM [CMAKE]: installs into a folder of the build and uses what lies there as a
# stranger would: programs outside the tree, found by pkg-config alone.
set -eu
source=$1 build=$2 make_model=$3 CC=$4 CXX=$5 NM=$6 cmake=$7
work=$build/install-test
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$work"
"$cmake" --install "$build" --prefix "$prefix" >"$work/install.log"
lib=$(dirname "$(find "$prefix" -name gyre.pc)")/..
lib=$(cd "$lib" && pwd)
PKG_CONFIG_PATH=$lib/pkgconfig
export PKG_CONFIG_PATH
LD_LIBRARY_PATH=$lib
export LD_LIBRARY_PATH
VK_DRIVER_FILES=/dev/null VK_ICD_FILENAMES=/dev/null OCL_ICD_VENDORS=/dev/null # the cpu device: quick, and everywhere
export VK_DRIVER_FILES VK_ICD_FILENAMES OCL_ICD_VENDORS
XDG_CACHE_HOME=$work/cache
export XDG_CACHE_HOME
warn="-Wall -Wextra -Wpedantic -Werror"
fail() { echo "check.sh: $1" >&2; exit 1; }
cd "$work"
"$make_model" tiny.gguf Q8_0

# ---- the program of docs/embed.md, as it stands there, and one in C++
awk '/^```c$/ { on = 1; next } /^```$/ { if (on) exit } on' "$source/docs/embed.md" >chat.c
grep -q gyre_generate chat.c || fail "docs/embed.md has no program"
$CC -std=c17 $warn chat.c $(pkg-config --cflags --libs gyre) -o chat
./chat tiny.gguf 'hello there' >c.txt
[ -s c.txt ] || fail "the C program said nothing"
"$prefix/bin/gyre" run tiny.gguf -p 'hello there' -n 64 2>/dev/null | head -c "$(wc -c <c.txt)" | cmp - c.txt
./chat missing.gguf x 2>why.txt && fail "a missing model is no error"
[ "$(wc -l <why.txt)" = 1 ] || fail "an error is not one line"
$CXX -std=c++11 $warn "$source/tests/install/stream.cpp" $(pkg-config --cflags --libs gyre) -o stream
./stream tiny.gguf 'hello there' | cmp - c.txt
$CC -std=c17 $warn chat.c $(pkg-config --static --cflags --libs gyre | sed 's/-lgyre /-l:libgyre.a /; s/-lgyre$/-l:libgyre.a/') -o chat-static
./chat-static tiny.gguf 'hello there' | cmp - c.txt
ldd chat-static | grep -q libgyre && fail "the static program needs libgyre.so"

# ---- cancel, save and load, what only a later library has, the quantizer
$CC -std=c17 -D_POSIX_C_SOURCE=200809L $warn "$source/tests/install/cancel.c" $(pkg-config --cflags --libs gyre) -lpthread -o cancel
./cancel tiny.gguf saved
$CC -std=c17 $warn "$source/tests/install/later.c" $(pkg-config --cflags --libs gyre) -o later
./later tiny.gguf
$CC -std=c17 $warn "$source/tests/install/recipes.c" $(pkg-config --cflags --libs gyre-quantize) -o recipes
./recipes tiny.gguf int4.gguf
./chat int4.gguf 'hello there' >/dev/null

# ---- CMake's package
mkdir -p package
cat >package/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(stranger C)
find_package(gyre 0.1 REQUIRED)
add_executable(stranger ../chat.c)
target_link_libraries(stranger gyre::gyre)
END
"$cmake" -S package -B package/build -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$CC" >package.log
"$cmake" --build package/build >>package.log
package/build/stranger tiny.gguf 'hello there' | cmp - c.txt

# ---- symbols and dependencies
for name in gyre gyre-quantize; do
  "$NM" -D --defined-only "$lib/lib$name.so" | awk '{print $NF}' | sort >$name.dynamic
  "$NM" -g --defined-only "$lib/lib$name.a" | awk 'NF == 3 {print $3}' | sort >$name.static
  grep -v '^gyre_' $name.dynamic $name.static && fail "lib$name gives away other names than gyre_*"
  grep . "$build/$name.names" | sort >$name.public
  cmp $name.public $name.dynamic
  cmp $name.public $name.static
done
# Hidden names count too: a program that links the layers, or a debugger that finds them, meets one prefix.
find "$build/CMakeFiles" -path '*/gyre_*.dir/*.o' >objects
[ "$(wc -l <objects)" -gt 100 ] || fail "no objects found: this check looks in the wrong place"
xargs "$NM" -g --defined-only <objects | awk 'NF == 3 {print $3}' | grep -v '^main$' | grep -v '^gyre_' &&
  fail "an external name without the prefix gyre_"
[ "$(wc -l <gyre.dynamic)" -gt 30 ] || fail "libgyre has hardly a function"
ldd "$lib/libgyre.so" >ldd.txt
grep -iE 'blas|lapack|gfortran|quadmath|yaml|vulkan|OpenCL' ldd.txt && fail "libgyre needs what only the quantizer may"
ldd "$lib/libgyre-quantize.so" | grep -qi blas || fail "libgyre-quantize without BLAS: this check looks in the wrong place"
for name in jansson pcre2 utf8proc nettle; do
  grep -q $name ldd.txt || fail "libgyre without $name: this check looks in the wrong place"
done
echo "installed: $(wc -l <gyre.dynamic) functions of libgyre, $(wc -l <gyre-quantize.dynamic) of libgyre-quantize"
