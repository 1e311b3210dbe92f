#!/bin/sh
# Installs bubblewrap, which isolates runs, where that needs no questions: as root on Debian and its kin.
# Elsewhere runs work at trust level `open`, and `speedrun doctor` says what to install.
command -v bwrap >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing bubblewrap"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends bubblewrap; } >/dev/null 2>&1 && exit 0
fi
echo "bubblewrap is not installed: runs are at trust level open; see: .venv/bin/speedrun doctor" >&2
exit 0
