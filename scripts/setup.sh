#!/usr/bin/env bash
# Sets up what is missing to build (default) or also to test (`setup.sh test`):
# one line for each thing that is missing, nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly goal=${1:-build}
missing=()

need() { # command, Debian package
    command -v "$1" >/dev/null 2>&1 && return
    echo "missing: $1 (Debian package $2)"
    missing+=("$2")
}

if ! command -v cargo >/dev/null 2>&1; then
    echo "missing: cargo. Install Rust by rustup, https://rustup.rs, and run this again." >&2
    exit 1
fi
need cmake cmake
need g++ g++
need nasm nasm
need node nodejs
need npm npm
if [[ $goal == test ]]; then
    need python3 python3
    need chromium chromium
    need ffmpeg ffmpeg
    if command -v python3 >/dev/null 2>&1 && ! python3 -c 'import ensurepip' 2>/dev/null; then
        echo "missing: ensurepip (Debian package python3-venv)"
        missing+=(python3-venv)
    fi
fi

if ((${#missing[@]})); then
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null 2>&1; then
        echo "Install these packages as root and run this again: ${missing[*]}" >&2
        exit 1
    fi
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
fi

# The interoperability tests speak to an independent WebRTC stack in Python.
readonly venv=.cache/venv packages=(aiortc==1.16.0 imageio-ffmpeg==0.8.1)
if [[ $goal == test && "$(cat "$venv/.packages" 2>/dev/null)" != "${packages[*]}" ]]; then
    echo "missing: Python packages ${packages[*]}; installing into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" </dev/null
    echo "${packages[*]}" >"$venv/.packages"
fi
