#!/bin/sh
# Compiles every kernel for Intel GPUs with Intel's offline compiler: no device needed, no kernel may fail or spill.
#
#   ocloc.sh KERNEL_TEXTS_PROGRAM
#
# Gen9 (skl), Xe-LP (tgllp) and Xe-HPG (dg2); kernels with int8 dot products also in their accelerated form, which the
# last two have. The zebin format says in plain text what memory a thread needs beside its registers: spills, and arrays
# that did not fit. Ends with 77 (skipped) where ocloc is not installed.
set -u
command -v ocloc >/dev/null || { echo "skipped: ocloc is not installed"; exit 77; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

# compile FILE DEVICE OPTIONS: 0 when it compiles and lives in registers. What a driver tells its compiler about the
# extension must be told here.
compile() {
  rm -f "$dir/out"*
  ocloc compile -q -file "$dir/$1.cl" -device "$2" -options "$3" -output_no_suffix -output out -out_dir "$dir" \
    -internal_options "-cl-intel-allow-zebin $features" >"$dir/log" 2>&1 || return 1
  grep -qa "execution_env" "$dir/out" || { echo "no statistics in the binary" >"$dir/log"; return 1; }
  grep -a -A4 "per_thread_memory_buffers" "$dir/out" | grep -aoE "(usage|size): *[a-z0-9_]+" >"$dir/log" && return 1
  return 0
}

# The lab must be able to see: a kernel that spills, and one that does not compile.
cat >"$dir/spills.cl" <<'CL'
__kernel __attribute__((reqd_work_group_size(32, 1, 1))) void spills(__global float *y, int n)
{
  float a[800];
  for (int i = 0; i < 800; i++) a[i] = y[i * n + get_global_id(0)];
  for (int k = 0; k < n; k++)
    for (int i = 0; i < 800; i++) a[i] = a[i] * a[(i + 1) % 800] + a[(i + 7) % 800];
  for (int i = 0; i < 800; i++) y[i * n + get_global_id(0)] = a[i];
}
CL
echo "__kernel void broken(__global float *y) { y[0] = nothing; }" >"$dir/broken.cl"
echo "__kernel void dot4(__global int *y) { y[0] = dot_4x8packed_ss_int(y[1], y[2]); }" >"$dir/dot4.cl"
dot_features="-cl-ext=+cl_khr_integer_dot_product,+__opencl_c_integer_dot_product_input_4x8bit_packed"
features=""
compile broken skl "" && { echo "the lab does not see errors"; exit 1; }
for device in skl tgllp dg2; do
  compile spills $device "" && { echo "the lab does not see spills on $device"; exit 1; }
  grep -q "size" "$dir/log" || { echo "the lab's example of spills does not compile for $device"; exit 1; }
done
# Releases before 2023 take the built-in function for an external one and call it through a stack.
features=$dot_features
dot_works=yes
compile dot4 dg2 "-cl-std=CL3.0" || { dot_works=; echo "this ocloc has no int8 dot products: base forms only"; }

"$1" "$dir" >"$dir/list" || exit 1
n=0
while read -r name dot; do
  for device in skl tgllp dg2; do
    forms="-cl-std=CL1.2"
    [ "$dot" = only ] && forms=
    [ -n "$dot" ] && [ -n "$dot_works" ] && [ $device != skl ] && forms="$forms -cl-std=CL3.0:-DGYRE_INT_DOT"
    for form in $forms; do
      n=$((n + 1))
      features=""
      [ "$form" = -cl-std=CL1.2 ] || features=$dot_features
      compile "$name" $device "$(echo "$form" | tr : ' ') -cl-mad-enable" && continue
      bad=$((bad + 1))
      echo "$name for $device ($form):"
      head -c 1000 "$dir/log"
    done
  done
done <"$dir/list"
echo "$n programs compiled, $bad with findings"
[ $n -gt 0 ] && [ $bad -eq 0 ]
