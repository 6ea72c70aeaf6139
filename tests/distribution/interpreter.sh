#!/bin/sh
# Print the Python that environments are made by: the one that is asked for, if it can. Else say why not, and which can.
#     tests/distribution/interpreter.sh python3.12
# pyenv has a shim on the path for whatever one of its versions has. Where none of these was chosen, a shim only says
# so; then what it stands for is taken.
set -u
asked=$1
versions=${PYENV_ROOT:-${HOME:-}/.pyenv}/versions

why_not() { # of a program; prints nothing if it can
    "$1" -c '
import sys
if sys.version_info < (3, 11):
    sys.exit("it is Python %d.%d, and 3.11 or later is needed" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError as exc:
    sys.exit("it lacks %s: on Debian install python3-venv" % exc.name)
' 2>&1 || echo "it ended by status $?"
}

reason=$(why_not "$asked")
if [ -z "$reason" ]; then
    echo "$asked"
    exit
fi
for found in "$versions"/*/bin/"${asked##*/}"; do
    if [ -x "$found" ] && [ -z "$(why_not "$found")" ]; then
        echo "$asked cannot be used here, and pyenv has it: $found is taken" >&2
        echo "$found"
        exit
    fi
done
echo "PYTHON=$asked cannot be used: $(printf '%s\n' "$reason" | sed -n '/./{p;q;}')" >&2
usable=
for found in python3 python3.11 python3.12 python3.13 python3.14 "$versions"/*/bin/python3; do
    [ -z "$(why_not "$found")" ] && usable="$usable $found"
done
echo "of those on this machine, these can:${usable:- none}" >&2
exit 1
