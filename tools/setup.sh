#!/usr/bin/env bash
# Sees to what the build needs from the system: cargo, a C++ compiler, and libclang with its headers (RocksDB is
# compiled from source, and its Rust bindings are generated). Says nothing when all is there.
# With --browser, instead, to a Chromium for the test of plan's page, which skips without one: this never fails.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }

has_cxx() {
    local compiler
    for compiler in "${CXX:-}" c++ g++ clang++; do
        # One that lacks the standard library's headers is none.
        if [ -n "$compiler" ] && echo '#include <vector>' | $compiler -x c++ -fsyntax-only - >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

any() { # whether one of these paths is there; patterns without a match stay as they are, and are not
    local path
    for path in "$@"; do [ -e "$path" ] && return 0; done
    return 1
}

# The folders in which the build looks for libclang, too.
libclang_folders() {
    if [ -n "${LIBCLANG_PATH:-}" ]; then
        if [ -f "$LIBCLANG_PATH" ]; then dirname "$LIBCLANG_PATH"; else echo "$LIBCLANG_PATH"; fi
        return
    fi
    local prefix
    if prefix=$("${LLVM_CONFIG_PATH:-llvm-config}" --prefix 2>/dev/null); then printf '%s\n' "$prefix"/lib "$prefix"/lib64; fi
    printf '%s\n' "${LD_LIBRARY_PATH:-}" "${LIBRARY_PATH:-}" | tr ':' '\n'
    printf '%s\n' /usr/local/llvm*/lib* /usr/local/lib*/*/* /usr/local/lib*/* /usr/local/lib* \
        /usr/lib*/*/* /usr/lib*/* /usr/lib* /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm*/lib \
        /Library/Developer/CommandLineTools/usr/lib
}

has_libclang() {
    local folder
    while IFS= read -r folder; do
        if [ -d "$folder" ] && any "$folder"/libclang.so* "$folder"/libclang-[0-9]*.so* "$folder"/libclang.dylib; then
            return 0
        fi
    done < <(libclang_folders)
    return 1
}

# libclang without clang's own headers fails late, with "'stddef.h' file not found".
has_clang_headers() {
    [ -n "${BINDGEN_EXTRA_CLANG_ARGS:-}" ] && return 0
    local resources
    if resources=$(clang -print-resource-dir 2>/dev/null) && [ -e "$resources/include/stddef.h" ]; then return 0; fi
    any "${LIBCLANG_PATH:-/nowhere}"/clang/*/include/stddef.h \
        /usr/lib/llvm*/lib/clang/*/include/stddef.h /usr/lib*/clang/*/include/stddef.h \
        /usr/local/lib*/clang/*/include/stddef.h /usr/local/llvm*/lib/clang/*/include/stddef.h \
        /opt/homebrew/opt/llvm/lib/clang/*/include/stddef.h /usr/local/opt/llvm*/lib/clang/*/include/stddef.h \
        /Library/Developer/CommandLineTools/usr/lib/clang/*/include/stddef.h
}

missing() {
    has_cxx || echo g++
    if ! has_libclang || ! has_clang_headers; then echo libclang-dev; fi
}

as=() # what makes a command root's
root() {
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
    as=(sudo -n)
}

browser() {
    local name get
    for name in chromium chromium-browser google-chrome chrome; do command -v "$name" >/dev/null && return; done
    get=(env DEBIAN_FRONTEND=noninteractive timeout 240 apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
    if command -v apt-get >/dev/null && root; then
        say "installing chromium"
        { ${as[@]+"${as[@]}"} "${get[@]}" install -y --no-install-recommends chromium ||
            { ${as[@]+"${as[@]}"} "${get[@]}" update &&
                ${as[@]+"${as[@]}"} "${get[@]}" install -y --no-install-recommends chromium; }; } >/dev/null 2>&1 && return
    fi
    say "no Chromium here: the test of plan's page will skip"
}

install() { # packages
    root || return 1
    local command=(env DEBIAN_FRONTEND=noninteractive apt-get)
    say "installing $*"
    # Lists that are missing or old are the usual reason to fail, and a good one to fetch them and try once more.
    ${as[@]+"${as[@]}"} "${command[@]}" install -y --no-install-recommends "$@" >&2 ||
        { ${as[@]+"${as[@]}"} "${command[@]}" update >&2 &&
            ${as[@]+"${as[@]}"} "${command[@]}" install -y --no-install-recommends "$@" >&2; }
}

if [ "${1:-}" = --browser ]; then
    browser
    exit 0
fi

if ! command -v cargo >/dev/null; then
    say "cargo is not on the PATH. Install Rust from https://rustup.rs, open a new shell, and try again."
    exit 1
fi

mapfile -t packages < <(missing)
[ "${#packages[@]}" -eq 0 ] && exit 0

if command -v apt-get >/dev/null && install "${packages[@]}"; then
    mapfile -t packages < <(missing)
    [ "${#packages[@]}" -eq 0 ] && exit 0
fi

say "the build needs a C++ compiler and libclang with its headers; missing here: ${packages[*]}"
say "  Debian, Ubuntu: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages[*]}"
say "  Fedora, RHEL:   sudo dnf install -y gcc-c++ clang-devel clang-libs"
say "  Arch:           sudo pacman -S --needed gcc clang"
say "  elsewhere:      any libclang will do; LIBCLANG_PATH names its folder"
exit 1
