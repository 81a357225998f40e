# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this
# Where the laboratory keeps what it downloads. Needs common.sh.

KERNEL=$CACHE/kernel
VENV=$CACHE/venv

# The name of the Debian with the Dovecot that this machine has not.
other_root() {
    case $(dovecot --version) in
        2.4.*) printf 'bookworm\n' ;;
        *) printf 'trixie\n' ;;
    esac
}

# The version of the kernel in the cache; false if there is none.
kernel_version() {
    local image
    image=$(compgen -G "$KERNEL/boot/vmlinuz-*") || return 1
    printf '%s\n' "${image#"$KERNEL/boot/vmlinuz-"}"
}
