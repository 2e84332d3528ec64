#!/bin/sh
# Makes sure that this machine can link a Rust program and has a driver that wgpu can use.
#
# Does nothing where both are there. On Debian and its relatives it installs what is missing: the
# Vulkan loader with Mesa's drivers, whose `lavapipe` runs on the processor, and a C linker.
# Elsewhere it names what to install and exits 1. A package manager is never called on a machine
# that needs nothing.
set -eu

say() { printf 'ensure-driver: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

have() { command -v "$1" >/dev/null 2>&1; }

# The loader, libvulkan.so.1, wherever the dynamic linker or a distribution puts it.
has_loader() {
    if have ldconfig && ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; then return 0; fi
    if [ -x /sbin/ldconfig ] && /sbin/ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; then return 0; fi
    (
        IFS=:
        for folder in ${LD_LIBRARY_PATH:-} /usr/lib /usr/lib64 /usr/local/lib /run/opengl-driver/lib; do
            [ -e "$folder/libvulkan.so.1" ] && exit 0
        done
        exit 1
    )
}

# At least one driver manifest, in the places that the loader searches.
has_manifest() {
    [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}${VK_ADD_DRIVER_FILES:-}" ] || return 0
    (
        IFS=:
        for root in ${XDG_DATA_HOME:-${HOME:-}/.local/share} ${XDG_CONFIG_HOME:-${HOME:-}/.config} \
            /etc /usr/local/etc /etc/xdg ${XDG_DATA_DIRS:-/usr/local/share:/usr/share} \
            /run/opengl-driver/share; do
            for manifest in "$root"/vulkan/icd.d/*.json; do
                [ -e "$manifest" ] && exit 0
            done
        done
        exit 1
    )
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -t 0 ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

install_with_apt() {
    say "installing $*"
    # A stale or empty package list is the usual state of a fresh machine or container.
    as_root apt-get update -qq || say "the package lists could not be refreshed; trying with the old ones"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

driver_hint() {
    if have dnf; then echo "dnf install vulkan-loader mesa-vulkan-drivers"
    elif have pacman; then echo "pacman -S vulkan-icd-loader vulkan-swrast"
    elif have zypper; then echo "zypper install libvulkan1 libvulkan_lvp"
    elif have apk; then echo "apk add vulkan-loader mesa-vulkan-swrast"
    elif have pkg; then echo "pkg install vulkan-loader mesa-dri"
    elif have apt-get; then echo "apt-get install libvulkan1 mesa-vulkan-drivers"
    else echo "the Vulkan loader and a driver for your GPU, or Mesa's lavapipe"
    fi
}

linker_hint() {
    if have apt-get; then echo "apt-get install build-essential"
    elif have dnf; then echo "dnf install gcc"
    elif have pacman; then echo "pacman -S base-devel"
    elif have zypper; then echo "zypper install gcc"
    elif have apk; then echo "apk add build-base"
    else echo "a C compiler that is called as cc"
    fi
}

case "$(uname -s)" in
    Darwin)
        have cc || fail "Rust needs a C linker (cc); install it with: xcode-select --install"
        say "macOS brings Metal: nothing to install"
        exit 0
        ;;
    MINGW* | MSYS* | CYGWIN* | Windows_NT)
        say "Windows brings DirectX 12: nothing to install"
        exit 0
        ;;
esac

driver=missing
linker=missing
if has_loader && has_manifest; then driver=found; fi
if have cc; then linker=found; fi
[ "$driver$linker" = foundfound ] && exit 0

if have apt-get && { [ "$(id -u)" = 0 ] || have sudo; }; then
    set --
    [ "$linker" = found ] || set -- "$@" build-essential
    [ "$driver" = found ] || set -- "$@" libvulkan1 mesa-vulkan-drivers
    install_with_apt "$@" || fail "apt-get failed; install by hand: $*"
    exit 0
fi

[ "$linker" = found ] || say "Rust needs a C linker (cc); install it with: $(linker_hint)" >&2
[ "$driver" = found ] || say "no Vulkan driver was found; install one with: $(driver_hint)" >&2
exit 1
