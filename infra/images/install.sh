#!/bin/sh
# install-requirements FILE [PACKAGE]: what FILE pins, every file verified by hash; or PACKAGE alone, as FILE pins it.
# Build secrets `ca` and `pip` are read where they are given and stay in no layer.
set -eu
[ -f /run/secrets/ca ] && export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
[ -f /run/secrets/pip ] && export PIP_CONFIG_FILE=/run/secrets/pip
file=$1
if [ $# -gt 1 ]; then
    file=$(mktemp)
    awk -v wanted="$2==" 'index($0, wanted) == 1 {on = 1} on {print} on && !/\\$/ {exit}' "$1" > "$file"
fi
/opt/venv/bin/python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --no-compile \
    --require-hashes --only-binary :all: --requirement "$file"
[ "$file" = "$1" ] || rm "$file"
rm -rf ~/.cache
find /opt/venv -type d \( -name tests -o -name test -o -name __pycache__ \) -prune -exec rm -rf {} +
