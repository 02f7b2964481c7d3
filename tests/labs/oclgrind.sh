#!/bin/sh
# Runs a program on oclgrind's simulated OpenCL device and judges what the simulator found.
#
#   oclgrind.sh clean PROGRAM [ARG...]     fails on any finding, or when PROGRAM fails
#   oclgrind.sh "TEXT" PROGRAM [ARG...]    fails unless some finding contains TEXT: proof that the lab can see it
#
# Ends with 77 (skipped) where oclgrind is not installed. The program sees one device, opencl:0.
set -u
expect=$1
shift
command -v oclgrind >/dev/null || { echo "skipped: oclgrind is not installed"; exit 77; }
dir=$(mktemp -d) || exit 1
log=$dir/log
errors=$dir/errors
trap 'rm -rf "$dir"' EXIT

# What kernels do wrong goes to the log, what the host does wrong to stderr. Not optimized: the optimizer makes
# instructions that the simulator does not know (freeze, funnel shifts) and stores of vectors that look uninitialised.
oclgrind --build-options -cl-opt-disable --data-races --uninitialized --check-api --max-errors 50 --log "$log" \
  "$@" 2>"$errors"
status=$?
cat "$errors" >&2
grep -A4 "^Oclgrind - " "$errors" >>"$log"
if [ "$expect" != clean ]; then
  grep -q -e "$expect" "$log" && { echo "oclgrind reported it: $(grep -m1 -e "$expect" "$log")"; exit 0; }
  echo "oclgrind did not report \"$expect\"; it said:"
  cat "$log"
  exit 1
fi
if [ -s "$log" ]; then
  echo "oclgrind found:"
  head -c 8000 "$log"
  exit 1
fi
exit $status
