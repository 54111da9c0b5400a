#!/bin/sh
# What `make demo` runs: a cluster of this machine's cores, from nothing to nothing, in directories of its own.
# Arguments go to the example: `sh examples/demo.sh --limit 200` takes the 200 largest files only.
set -eu
cd "$(dirname "$0")/.."

# Short, because Unix sockets lie below (a path of theirs has at most 107 bytes); the cluster of a person is not touched.
place=$(mktemp -d /tmp/clusterd-demo.XXXXXX)
export CLUSTERD_RUNTIME_DIR="$place/run" CLUSTERD_STATE_DIR="$place/state" CLUSTERD_CONFIG_DIR="$PWD/etc/clusterd"
# For containers, where root is all there is.
export CLUSTERD_ALLOW_ROOT=1
mkdir -m 700 "$place/run" "$place/state"
cores=$(python -c 'import os; print(len(os.sched_getaffinity(0)))')
clean=no

say() {
  printf '\n$ %s\n' "$*"
  "$@"
}

leave() {
  status=$?
  trap - EXIT INT TERM HUP
  if [ "$clean" = no ]; then
    printf '\nThe demo did not come to its end; the last lines of the logs:\n' >&2
    find "$place/state" -path '*/log/*.log' -exec tail -n 15 {} + >&2 || :
    clusterctl -p local stop >&2 || :
  fi
  rm -rf "$place"
  exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say clusterctl -p local start
say clusterctl -p local scale engines "$cores" --wait
say clusterctl -p local status
say python examples/stdlib_census.py local "$@"
say clusterctl -p local stop
clean=yes

# The promise is checked, not hoped for: whoever still has our directory in its environment or arguments, or has a file of it open.
left=$(python - "$place" <<'PROGRAM'
import os, sys

place = sys.argv[1].encode()
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) in (os.getpid(), os.getppid()):
        continue
    try:
        links = b" ".join(os.readlink(f"/proc/{pid}/fd/{fd}").encode() for fd in os.listdir(f"/proc/{pid}/fd"))
        command = open(f"/proc/{pid}/cmdline", "rb").read()
    except OSError:
        continue
    if place in links or place in command:
        print(pid, command.replace(b"\0", b" ").decode(errors="replace"))
PROGRAM
)
if [ -n "$left" ]; then
  printf '\nStill running after the stop:\n%s\n' "$left" >&2
  exit 1
fi
printf '\nNothing is left: no process, no file.\n'
