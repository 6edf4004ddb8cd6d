# What the scripts in ci/ share. To be sourced by bash.

say() { printf '\n== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 2; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs Debian packages; asks for the package lists once only.
install() {
    have apt-get || die "please install by hand: $*"
    say "installing $*"
    if [ -z "${LISTS_FRESH:-}" ]; then
        as_root apt-get update -qq
        LISTS_FRESH=yes
    fi
    # No service starts on installation: dockerd, say, would change the host's firewall.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq --no-install-recommends -y "$@" >/dev/null
}

# Installs those of the packages that are missing.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] || install "${missing[@]}"
}
