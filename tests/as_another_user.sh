#!/usr/bin/env bash
# Run a command in a copy of the tree as another user: what root may do, the tests must not need. Where that user
# cannot reach the command, say so and do nothing.
#     tests/as_another_user.sh USER COMMAND…
set -euo pipefail
user=$1
shift
[ "$(id -u)" = 0 ] || { echo "only root can become $user" >&2; exit 1; }
tree=$PWD
command=$(realpath --no-symlinks "$1")
shift
copy=$(mktemp -d /tmp/as-user-XXXXXX)
trap 'rm -rf "$copy"' EXIT
chmod 755 "$copy"
# What is the environment's, the tools' or was made before stays: it belongs to root.
tar --exclude='./.venv*' --exclude='./.*_cache' --exclude=./.git --exclude=./.hypothesis --exclude='./.coverage*' --exclude=./build --exclude=__pycache__ -C "$tree" -c . | tar -C "$copy" -x
chown -R "$user:" "$copy"
cd "$copy"
as() { setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- "$@"; }
if ! as test -x "$command"; then
    echo "nothing was run: $user cannot reach $command; put tree and Python where all can read them"
    exit 0
fi
as env HOME="$copy" PYTHONPATH="$copy" "$command" "$@"
