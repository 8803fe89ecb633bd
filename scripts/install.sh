#!/bin/sh
# Makes the virtual environment from the lock file. uv is quick (seconds); where it cannot be had or cannot reach the
# index that pip is configured for, pip does the same from the same hashes, more slowly.
set -eu
python=$1 venv=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Shouwang needs Python 3.11 or newer; '$python' is $("$python" -V 2>&1). Try: make PYTHON=python3.12 …" >&2; exit 1; }
"$python" -m venv "$venv" || {
  echo "Python's venv module is missing (on Debian and Ubuntu: apt-get install python3-venv)." >&2; exit 1; }
export PIP_DISABLE_PIP_VERSION_CHECK=1
index=$("$venv/bin/pip" config get global.index-url 2>/dev/null || true)
[ -n "${PIP_INDEX_URL:-$index}" ] && export UV_DEFAULT_INDEX="${PIP_INDEX_URL:-$index}"
export SSL_CERT_FILE="${SSL_CERT_FILE:-${PIP_CERT:-}}"; [ -n "$SSL_CERT_FILE" ] || unset SSL_CERT_FILE
export VIRTUAL_ENV="$PWD/$venv"
if "$venv/bin/python" -m pip install -q uv && "$venv/bin/uv" pip install -q --require-hashes -r requirements.lock; then :; else
  echo "uv could not install; using pip" >&2
  "$venv/bin/python" -m pip install -q --require-hashes -r requirements.lock
fi
"$venv/bin/python" -m pip install -q --no-deps --no-build-isolation -e .
