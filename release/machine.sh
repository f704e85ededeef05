# What banger's scripts need of the machine: privileges, packages, the Rust toolchain, one set of
# build settings. Sourced by release/build, release/quickstart and smoke/run; does nothing by itself.
# shellcheck shell=sh

banger_root=$(cd "$(dirname "$0")/.." && pwd -P)
banger_target=${CARGO_TARGET_DIR:-$banger_root/target}
case $banger_target in /*) ;; *) banger_target=$PWD/$banger_target ;; esac
native_target=x86_64-unknown-linux-musl

began=$(date +%s)

# say TEXT: one line of progress with the time since the script began.
say() { printf '[%3ss] %s\n' "$(($(date +%s) - began))" "$*" >&2; }

# die TEXT HINT...: ends the script; each hint is a line that says what to do.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    shift
    for hint in "$@"; do printf '  %s\n' "$hint" >&2; done
    exit 1
}

# as_root COMMAND...: runs it as root, through sudo only when needed.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "root is needed for: $*" "run this script as root, or install sudo"
    fi
}

# Programs and files and what brings them, on a distribution with apt. `sbin` is not in every user's
# PATH. gcc only recommends the C library's headers and start files, with which build scripts link.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
build_needs="gcc:gcc /usr/include/stdio.h:libc6-dev musl-gcc:musl-tools perl:perl make:make git:git"
run_needs="qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap nft:nftables ip:iproute2
    depmod:kmod mkfs.ext4:e2fsprogs ssh:openssh-client xz:xz-utils zstd:zstd newuidmap:uidmap ps:procps"
smoke_needs="qemu-img:qemu-utils setpriv:util-linux nsenter:util-linux ldd:libc-bin sha256sum:coreutils sshd:openssh-server lz4:lz4
    systemd-nspawn:systemd-container mmdebstrap:mmdebstrap strace:strace iptables:iptables dig:bind9-dnsutils
    dnsperf:dnsperf /usr/lib/python3/dist-packages/jsonschema:python3-jsonschema script:bsdutils rsync:rsync skopeo:skopeo umoci:umoci docker-registry:docker-registry
    /bin/busybox:busybox-static debugfs:e2fsprogs munged:munge slurmctld:slurmctld slurmd:slurmd sbatch:slurm-client
    cpio:cpio lintian:lintian man:man-db zsh:zsh fish:fish /usr/bin/python3:python3 /usr/share/python-wheels:python3-venv /usr/share/bash-completion/bash_completion:bash-completion"
package_needs="dpkg-deb:dpkg rpmbuild:rpm gzip:gzip openssl:openssl curl:curl"

# missing NEED...: the packages of those programs and files that are not there.
missing() {
    for need in "$@"; do
        is_there "${need%%:*}" || printf '%s\n' "${need#*:}"
    done | sort -u
}

is_there() {
    case $1 in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

# install_named "PACKAGE...": installs them, or says why not and ends.
install_named() {
    say "installing packages: $1"
    # shellcheck disable=SC2086  # a list of package names
    install_packages $1 ||
        die "apt-get could not install: $1" "its messages are above; then run this again"
}

# ensure_packages NEED...: installs what is missing; touches nothing when nothing is.
ensure_packages() {
    wanted=$(missing "$@" | tr '\n' ' ')
    [ -n "$wanted" ] || return 0
    command -v apt-get >/dev/null 2>&1 ||
        die "these are missing, and there is no apt-get to install them: $wanted" \
            "install the programs with your distribution's tools, then run this again"
    as_root apt-get update -qq
    install_named "$wanted"
    still=$(missing "$@" | tr '\n' ' ')
    # apt removes what conflicts with a new package: a tool from another suite than the distribution's.
    [ -z "$still" ] || install_named "$still"
    still=$(missing "$@" | tr '\n' ' ')
    [ -z "$still" ] || die "still missing after the installation: $still"
}

# install_packages PACKAGE...: a package that brings a service brings it switched off.
install_packages() {
    case " $* " in
    *" openssh-server "* | *" docker-registry "* | *" munge "* | *" slurmctld "* | *" slurmd "*)
        apt_guard=without_services
        install_versions "$@" || return 1
        # The tests start their own; a package has enabled the machine's for its next boot.
        for package in "$@"; do
            case $package in
            openssh-server) switched_off ssh ssh.socket ;;
            docker-registry | munge | slurmctld | slurmd) switched_off "$package" "$package.service" ;;
            esac
        done
        ;;
    *)
        apt_guard=as_root
        install_versions "$@"
        ;;
    esac
}

# switched_off SERVICE UNIT: not started by the next boot either.
switched_off() {
    # shellcheck disable=SC2016  # the script's own variables
    quietly as_root sh -c 'update-rc.d "$1" disable && { ! command -v systemctl || systemctl disable "$2"; }' sh "$1" "$2" ||
        say "the service $1 stays switched on"
}

# without_services COMMAND...: as root, while no package may start a service (/usr/sbin/policy-rc.d
# answers 101, invoke-rc.d(8)). A policy that was there before is put back.
without_services() {
    # shellcheck disable=SC2016  # the script's own variables
    as_root sh -c '
        policy=/usr/sbin/policy-rc.d
        put_back() { rm -f "$policy"; [ ! -e "$policy.banger" ] || mv "$policy.banger" "$policy"; }
        # What a run that was killed has left.
        ! grep -qs "of banger" "$policy" || put_back
        [ ! -e "$policy" ] || mv "$policy" "$policy.banger"
        trap put_back EXIT
        trap "exit 129" HUP
        trap "exit 130" INT
        trap "exit 143" TERM
        printf "#!/bin/sh\n# of banger\nexit 101\n" >"$policy"
        chmod 755 "$policy"
        "$@"' sh "$@"
}

# apt_get WORD...: under the guard of the installation that goes on.
apt_get() { quietly "$apt_guard" env DEBIAN_FRONTEND=noninteractive apt-get -y -qq --no-install-recommends "$@"; }

# A package from backports can forbid the stable version of a package that it shares its source with
# (qemu-utils 10 breaks qemu-system-common before 8). Then all installed ones of that source go to
# the version of the one that is asked for.
install_versions() {
    apt_get install "$@" && return 0
    siblings=""
    for package in "$@"; do
        source=$(source_of "$package")
        version=$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')
        for other in $(dpkg-query -W -f '${source:Package}=${Package}\n' | sed -n "s/^$source=//p"); do
            apt-cache madison "$other" | tr -d ' ' | grep -q "|$version|" && siblings="$siblings $other=$version"
        done
        siblings="$siblings $package=$version"
    done
    say "trying again with one version per source:$siblings"
    # shellcheck disable=SC2086  # a list of package=version
    apt_get install --allow-downgrades $siblings
}

source_of() {
    from=$(apt-cache show --no-all-versions "$1" | sed -n 's/^Source: \([^ ]*\).*/\1/p' | head -n 1)
    printf '%s\n' "${from:-$1}"
}

# quietly COMMAND...: its output is shown only when it fails.
quietly() {
    noise=$(mktemp)
    if "$@" >"$noise" 2>&1; then
        rm -f "$noise"
        return 0
    fi
    cat "$noise" >&2
    rm -f "$noise"
    return 1
}

# ensure_toolchain TARGET: a cargo that is new enough and can build for TARGET.
ensure_toolchain() {
    [ -f "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$banger_root/Cargo.toml")
    command -v cargo >/dev/null 2>&1 || explain_toolchain "cargo is not installed" "$wanted"
    found=$(cargo --version | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
    oldest=$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1)
    [ "$oldest" = "$wanted" ] || explain_toolchain "cargo is version ${found:-unknown}" "$wanted"
    [ -d "$(rustc --print sysroot)/lib/rustlib/$1" ] && return 0
    command -v rustup >/dev/null 2>&1 ||
        die "this Rust cannot build for $1" "install that target, or use rustup: https://rustup.rs"
    say "adding the Rust target $1"
    quietly rustup target add "$1" || die "rustup could not add the target $1"
}

# ensure_components COMPONENT...: rustfmt and clippy, which a minimal installation lacks.
ensure_components() {
    for component in "$@"; do
        "cargo-${component#rust}" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null 2>&1 || die "cargo has no $component" "install it with your Rust"
        say "adding $component"
        quietly rustup component add "$component" || die "rustup could not add $component"
    done
}

explain_toolchain() {
    rustup_package=$(apt-cache policy rustup 2>/dev/null | sed -n 's/^  Candidate: \([^(].*\)/\1/p')
    if [ -n "$rustup_package" ]; then
        hint="apt-get install rustup && rustup default stable"
    else
        hint="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
    fi
    die "$1; banger needs $2 or newer" "$hint" "then open a new shell, or: . \"\$HOME/.cargo/env\"" \
        "(Debian 12's own packages of Rust are too old)"
}

# of_commit COMMAND...: what git says of the sources. They may belong to another account (a build as
# root in a person's folder), which git refuses to look at unless it is told so.
of_commit() { git -c safe.directory="$banger_root" -C "$banger_root" "$@" 2>/dev/null; }

# build_settings: one set of compiler settings for everything these scripts compile, so that the C
# code of the dependencies (minutes of it) is compiled once, and so that no path and no date of this
# machine gets into the binary.
build_settings() {
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    sysroot=$(rustc --print sysroot)
    unit=$(printf '\037')
    # To names without a slash before them, which are no folder of any machine. The last match wins:
    # the target folder may lie inside the source folder.
    CARGO_ENCODED_RUSTFLAGS="--remap-path-prefix=$cargo_home=cargo${unit}--remap-path-prefix=$sysroot=rust"
    CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS${unit}--remap-path-prefix=$banger_root=banger"
    CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS${unit}--remap-path-prefix=$banger_target=target"
    # The standard library is called as the compiler calls it where its sources are not installed.
    library=/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')
    CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS${unit}--remap-path-prefix=$sysroot/lib/rustlib/src/rust=$library"
    # And a crate after itself, not after the mirror that it came from, whose folder has to be there to be known.
    quietly cargo fetch --locked --manifest-path "$banger_root/Cargo.toml" --target "$native_target" ||
        die "cargo could not fetch the crates"
    for mirror in "$cargo_home"/registry/src/*/; do
        CARGO_ENCODED_RUSTFLAGS="$CARGO_ENCODED_RUSTFLAGS${unit}--remap-path-prefix=${mirror%/}=crates"
    done
    # The stamp's date is banger's alone: were it the C compilers' too, every commit would compile
    # OpenSSL again. They get a date that never changes.
    BANGER_EPOCH=${BANGER_EPOCH:-${SOURCE_DATE_EPOCH:-$(of_commit log -1 --format=%ct || echo 0)}}
    SOURCE_DATE_EPOCH=315532800
    BANGER_COMMIT=$(of_commit rev-parse --short=8 HEAD || echo unknown)
    CARGO_TARGET_DIR=$banger_target
    export CARGO_ENCODED_RUSTFLAGS SOURCE_DATE_EPOCH BANGER_EPOCH BANGER_COMMIT CARGO_TARGET_DIR
    # What the person's environment says about flags and targets must not reach the result.
    unset RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET CFLAGS CPPFLAGS LDFLAGS BANGER_CC
    # Nor a library that lies around, or another profile.
    unset OPENSSL_DIR OPENSSL_LIB_DIR OPENSSL_INCLUDE_DIR OPENSSL_NO_VENDOR LIBSSH2_SYS_USE_PKG_CONFIG
    for name in $(env | sed -n 's/^\(CARGO_PROFILE_[A-Z0-9_]*\)=.*/\1/p'); do
        unset "$name"
    done
    # Both through release/banger-cc, which takes folders out of what OpenSSL compiles in.
    PATH=$banger_root/release:$PATH
    # Unwinding tables of C code serve nobody here, and are a tenth of it.
    mapped="-ffile-prefix-map=$cargo_home=cargo -ffile-prefix-map=$banger_target=target -g0"
    mapped="$mapped -fno-asynchronous-unwind-tables -fno-unwind-tables"
    # And through release/banger-perl, which tells OpenSSL what to leave out.
    export OPENSSL_SRC_PERL=banger-perl
    export PATH CC_x86_64_unknown_linux_musl=banger-cc CC_aarch64_unknown_linux_musl=banger-cc
    export CFLAGS_x86_64_unknown_linux_musl="$mapped" CFLAGS_aarch64_unknown_linux_musl="$mapped"
}

# checked COMMAND...: cargo with the profile of the release build, so that OpenSSL is compiled once
# for all, but without the costly optimisation across crates, and with overflow checks. (Debug
# assertions would give the build scripts another profile, and OpenSSL its minutes again.)
checked() {
    verb=$1
    shift
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none \
        CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
        cargo "$verb" --release --locked --quiet --target "$native_target" "$@"
}

# test_program NAME: builds the program that stands beside the tests under this name, and prints its path.
test_program() {
    checked test --test "$1" --no-run --message-format=json >"$banger_target/$1.json" || return 1
    program=$(sed -n "s/.*\"executable\":\"\([^\"]*\/$1-[^\"]*\)\".*/\1/p" "$banger_target/$1.json" | tail -n 1)
    rm -f "$banger_target/$1.json"
    [ -n "$program" ] || die "cargo does not say what it has built"
    printf '%s\n' "$program"
}
