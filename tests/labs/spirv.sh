#!/bin/sh
# The SPIR-V of kernels that this machine's glslang cannot build, made by the lab's from the GLSL of the build:
#
#   spirv.sh check LAB MADE COMMITTED NAME...    fails where COMMITTED/NAME.spv is not what MADE/NAME.comp gives
#   spirv.sh write LAB MADE COMMITTED NAME...    writes it anew
#
# LAB is scripts/lab, MADE the build's folder of kernels.
set -eu
what=$1 lab=$2 made=$3 committed=$4
shift 4
[ $# -gt 0 ] || { echo "spirv.sh: no kernel is named" >&2; exit 1; }
failed=0
for name in "$@"; do
  now=$made/$name.lab.spv
  "$lab" tool glslangValidator --quiet -g0 -V --target-env vulkan1.1 -S comp -o "$now" "$made/$name.comp"
  "$lab" tool spirv-val --target-env vulkan1.1 "$now"
  if [ "$what" = write ]; then cp "$now" "$committed/$name.spv"; continue; fi
  cmp "$now" "$committed/$name.spv" && continue
  echo "$committed/$name.spv is not made of today's source; run ninja matrix_spirv and commit it" >&2
  failed=1
done
exit $failed
