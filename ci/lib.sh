# What the scripts in ci/ share. To be sourced by bash.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 2; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Where useradd and mke2fs are, which is not in everybody's path.
export PATH=$PATH:/usr/sbin:/sbin

# Asks for the package lists, once only. Where they cannot be had, those that are there may do.
fresh_lists() {
    [ -z "${LISTS_FRESH:-}" ] || return 0
    as_root apt-get update -qq || printf 'apt-get update failed; going on with the lists that are there\n'
    LISTS_FRESH=yes
}

# Installs Debian packages.
install() {
    have apt-get || die "please install by hand: $*"
    say "installing $*"
    fresh_lists
    # No service starts on installation: dockerd, say, would change the host's firewall.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq --no-install-recommends -y \
        -o DPkg::Lock::Timeout=120 "$@" >/dev/null
}

# Installs those of the packages that are missing.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] || install "${missing[@]}"
}
