#!/usr/bin/env bash
# Makes sure that the named programs are there: installs their Debian packages when we are root and
# apt-get exists, else says what to install. Usage: tools/system-packages.sh PROGRAM[=PACKAGE]...
# PROGRAM may be the path of any file.
# The name `venv` stands for the module that `python3 -m venv` needs, which Debian packages apart.
set -euo pipefail

present() {
    case $1 in
        venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
        /*) [[ -e $1 ]] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing=()
for wanted in "$@"; do
    program=${wanted%%=*}
    present "$program" || missing+=("${wanted#*=}")
done
((${#missing[@]})) || exit 0

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    echo "installing the Debian packages: ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -qq -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
else
    echo "missing on this machine: ${missing[*]}" >&2
    echo "on Debian and Ubuntu: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi
