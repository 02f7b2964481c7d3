#!/bin/sh
# Compiles every kernel for Intel GPUs with Intel's offline compiler: no device needed, no kernel may fail or spill.
#
#   ocloc.sh KERNEL_TEXTS_PROGRAM
#
# Gen9 (skl), Xe-LP (tgllp) and Xe-HPG (dg2); kernels with int8 dot products also in their accelerated form, which the
# last two have. Ends with 77 (skipped) where ocloc is not installed.
set -u
command -v ocloc >/dev/null || { echo "skipped: ocloc is not installed"; exit 77; }
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

# compile FILE DEVICE OPTIONS: 0 when it compiles without a complaint about spills
compile() {
  ocloc compile -file "$dir/$1.cl" -device "$2" -options "$3" -output_no_suffix -output out -out_dir "$dir" >"$dir/log" 2>&1 &&
    ! grep -q "spilled" "$dir/log"
}

# The lab must be able to see: a kernel with a spill, and one that does not compile.
cat >"$dir/spills.cl" <<'CL'
__kernel __attribute__((reqd_work_group_size(16, 1, 1))) void spills(__global float *y, __global const float *x) {
  float a[160], s = 0; int i = get_global_id(0);
  for (int k = 0; k < 160; k++) a[k] = x[i + 64 * k];
  for (int j = 0; j < 20; j++)
    __attribute__((opencl_unroll_hint)) for (int k = 0; k < 160; k++) a[k] = a[k] * a[(7 * k + 3) % 160] + x[i + j];
  __attribute__((opencl_unroll_hint)) for (int k = 0; k < 160; k++) s += a[k] * a[k];
  y[i] = s;
}
CL
echo "__kernel void broken(__global float *y) { y[0] = nothing; }" >"$dir/broken.cl"
compile spills dg2 "" && { echo "the lab does not see spills"; exit 1; }
compile broken skl "" && { echo "the lab does not see errors"; exit 1; }

"$1" "$dir" >"$dir/list" || exit 1
n=0
while read -r name dot; do
  for device in skl tgllp dg2; do
    forms="-cl-std=CL1.2"
    [ -n "$dot" ] && [ $device != skl ] && forms="$forms -cl-std=CL3.0:-DGYRE_INT_DOT"
    for form in $forms; do
      n=$((n + 1))
      compile "$name" $device "$(echo "$form" | tr : ' ') -cl-mad-enable" && continue
      bad=$((bad + 1))
      echo "$name for $device ($form):"
      head -c 1000 "$dir/log"
    done
  done
done <"$dir/list"
echo "$n programs compiled, $bad with findings"
[ $n -gt 0 ] && [ $bad -eq 0 ]
