#!/bin/sh
# Runs a compiler: what ptxas says of kernels goes to <object>.ptxas, everything else on.
object=a.out
previous=
for argument in "$@"; do
  if [ "$previous" = -o ]; then object=$argument; fi
  previous=$argument
done
"$@" 2> "$object.ptxas"
status=$?
grep -v -e '^ptxas info' -e ' bytes stack frame, ' "$object.ptxas" >&2
exit $status
