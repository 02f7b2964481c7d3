#!/bin/sh
# The SPIR-V of kernels that this machine's glslang cannot build, made by the lab's from the GLSL of the build:
#
#   spirv.sh dated MADE COMMITTED NAME...        fails where COMMITTED/NAME.spv is of other GLSL than MADE/NAME.comp, as
#                                                the digests of COMMITTED/glsl.sha256 say: needs no lab
#   spirv.sh check MADE COMMITTED NAME...        fails where COMMITTED/NAME.spv is not what MADE/NAME.comp gives
#   spirv.sh write MADE COMMITTED NAME...        writes it anew, and the digests
#
# MADE is the build's folder of kernels.
set -eu
what=$1 made=$2 committed=$3 lab=$(dirname "$0")/../../scripts/lab
shift 3
[ $# -gt 0 ] || { echo "spirv.sh: no kernel is named" >&2; exit 1; }
# Blanks are the compiler's own.
digests() { for name in "$@"; do printf '%s  %s\n' "$(tr -d '[:space:]' <"$made/$name.comp" | sha256sum | cut -c-64)" "$name"; done; }
again="is not made of today's source; run ninja matrix_spirv and commit what it writes"
if [ "$what" = dated ]; then
  digests "$@" | cmp - "$committed/glsl.sha256" || { echo "$committed $again" >&2; exit 1; }
  exit 0
fi
failed=0
for name in "$@"; do
  now=$made/$name.lab.spv
  "$lab" tool glslangValidator --quiet -g0 -V --target-env vulkan1.1 -S comp -o "$now" "$made/$name.comp"
  "$lab" tool spirv-val --target-env vulkan1.1 "$now"
  if [ "$what" = write ]; then cp "$now" "$committed/$name.spv"; continue; fi
  cmp "$now" "$committed/$name.spv" && continue
  echo "$committed/$name.spv $again" >&2
  failed=1
done
[ "$what" != write ] || digests "$@" >"$committed/glsl.sha256"
exit $failed
