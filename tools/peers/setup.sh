#!/usr/bin/env bash
# Sees to what compare.py measures kvtier against: Debian's redis-server, and Mooncake Store in a Python environment of its
# own in the user's cache folder. Says nothing when all is there.
set -euo pipefail

MOONCAKE='mooncake-transfer-engine-non-cuda==0.3.13.post1'
ENVIRONMENT="${XDG_CACHE_HOME:-$HOME/.cache}/kvtier/peers"

say() { printf 'peers: %s\n' "$*" >&2; }

missing() {
    command -v redis-server >/dev/null && command -v redis-benchmark >/dev/null || echo redis-server
    local libraries
    libraries=$(/sbin/ldconfig -p)
    # What Mooncake's programs need and its package does not bring.
    [[ "$libraries" == *libibverbs.so.1* ]] || echo libibverbs1
    [[ "$libraries" == *libnuma.so.1* ]] || echo libnuma1
    [[ "$libraries" == *libcurl.so.4* ]] || echo libcurl4
    python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

install() { # packages
    local as=()
    [ "$(id -u)" -eq 0 ] || as=(sudo -n)
    local command=(env DEBIAN_FRONTEND=noninteractive apt-get)
    say "installing $*"
    ${as[@]+"${as[@]}"} "${command[@]}" install -y --no-install-recommends "$@" >&2 ||
        { ${as[@]+"${as[@]}"} "${command[@]}" update >&2 &&
            ${as[@]+"${as[@]}"} "${command[@]}" install -y --no-install-recommends "$@" >&2; }
    # Debian starts a server with its package. One that nobody asked for goes again; compare.py starts its own.
    if [[ " $* " == *" redis-server "* ]] && command -v systemctl >/dev/null; then
        ${as[@]+"${as[@]}"} systemctl disable --now redis-server >&2 || true
    fi
}

mapfile -t packages < <(missing)
if [ "${#packages[@]}" -gt 0 ] && ! { command -v apt-get >/dev/null && install "${packages[@]}"; }; then
    say "please install: ${packages[*]}"
    exit 1
fi

if [ "$("$ENVIRONMENT/bin/pip" freeze 2>/dev/null | grep -i '^mooncake')" != "$MOONCAKE" ]; then
    say "installing $MOONCAKE into $ENVIRONMENT"
    python3 -m venv "$ENVIRONMENT"
    "$ENVIRONMENT/bin/pip" install --quiet --disable-pip-version-check "$MOONCAKE" >&2
fi
