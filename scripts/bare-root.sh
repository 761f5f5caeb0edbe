#!/usr/bin/env bash
# The Dockerfiles' steps without an engine: a bare Debian 12 below a folder (debootstrap), the Rust toolchain of this
# machine bound into it, docker/build.sh, docker/prepare-server.sh, docker/entrypoint.sh, docker/healthcheck.sh in that
# order; then, in the same root, `make demo` and `make test` as on a fresh machine. Needs root. Mounts live in a
# namespace of their own and are gone when the script ends.
#
#   bare-root.sh              all of it
#   bare-root.sh image        only the image's steps
#   bare-root.sh setup        only make setup
#   bare-root.sh test         only make test (T=… as there)
#   bare-root.sh demo         only make demo
#   bare-root.sh packages     only the Debian packages
#   bare-root.sh package      only make package, of the PG_MAJOR that this Debian has
#   bare-root.sh try FILE     installs a package made by make package, and nothing else of ours; searches with it;
#                             removes it
#   BARE_ROOT=folder          where (default /var/tmp/copymatch-bare); what was there before is removed first
#   BARE_KEEP=1               but not with this: the packages installed and what was built stay
#   BARE_SUITE=trixie         another Debian than 12, with PG_MAJOR set to the version that it has
#   BARE_PACKAGES="…"         packages beyond those that the set-up asks for, such as Debian's pgvector: setup and
#                             packages install them
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
what=${1:-all}
bare=${BARE_ROOT:-/var/tmp/copymatch-bare}
suite=${BARE_SUITE:-bookworm}

[ "$(id -u)" -eq 0 ] || die "a bare Debian root needs root"
command -v debootstrap >/dev/null || { say "installing debootstrap" && apt-get install -y -qq debootstrap >/dev/null; }
rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
cargo_home=${CARGO_HOME:-$HOME/.cargo}

if [ "${BARE_NAMESPACE:-}" != yes ]; then
    BARE_NAMESPACE=yes exec unshare --mount --propagation private --pid --fork --kill-child -- "$0" "$@"
fi

# Earlier runs' packages would hide one that the set-up forgets.
if [ -z "${BARE_KEEP:-}" ] && [ -e "$bare/.bare-debian" ]; then rm -rf --one-file-system "$bare"; fi
if [ ! -e "$bare/.bare-debian" ]; then
    say "debootstrap of $suite into $bare"
    mkdir -p "$bare"
    retried debootstrap --variant=minbase "$suite" "$bare" >"$bare.log" 2>&1 || {
        tail -n 20 "$bare.log" >&2
        die "debootstrap failed"
    }
    : >"$bare/.bare-debian"
fi
# The same package sources (of the same Debian), name service and certificates as this machine's.
if [ "$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" = "$suite" ]; then
    rm -rf "$bare/etc/apt/sources.list.d" "$bare/etc/apt/sources.list"
    cp -a /etc/apt/sources.list.d "$bare/etc/apt/" 2>/dev/null || true
    cp /etc/apt/sources.list "$bare/etc/apt/sources.list" 2>/dev/null || true
fi
cp -a /etc/apt/apt.conf.d/. "$bare/etc/apt/apt.conf.d/"
cp -L /etc/resolv.conf /etc/hosts "$bare/etc/"
mkdir -p "$bare"/{root/.rustup,root/.cargo,etc/ssl/certs}
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$bare/etc/ssl/certs/"
# The package ca-certificates writes that file anew from its own authorities and these.
if [ -d /usr/local/share/ca-certificates ]; then cp -a /usr/local/share/ca-certificates "$bare/usr/local/share/"; fi

mount -t proc proc "$bare/proc"
mount --rbind /dev "$bare/dev"
mount -t tmpfs -o mode=1777 tmpfs "$bare/dev/shm"
mount --bind "$rustup_home" "$bare/root/.rustup"
# Only the downloaded crates; tools that this machine happens to have stay outside.
mkdir -p "$bare/root/.cargo/bin" "$bare/root/.cargo/registry" "$cargo_home/registry"
mount --bind "$cargo_home/registry" "$bare/root/.cargo/registry"
for program in cargo rustc rustdoc rustfmt cargo-fmt cargo-clippy clippy-driver rustup; do
    cp -a "$cargo_home/bin/$program" "$bare/root/.cargo/bin/"
done

if [ "$what" != try ]; then
    say "copying the sources"
    if [ -z "${BARE_KEEP:-}" ]; then rm -rf "$bare/src"; fi
    mkdir -p "$bare/src"
    # What the tree no longer has goes; what was built and fetched from it stays.
    find "$bare/src" -mindepth 1 -maxdepth 1 ! -name .local ! -name target -exec rm -rf {} +
    (cd "$ROOT" && git ls-files -z --cached --others --exclude-standard |
        tar --null --ignore-failed-read -T - -cf - 2>/dev/null) |
        tar -xf - -C "$bare/src"
fi

inside() { # inside COMMAND…: with nothing of this machine's environment but how to reach the network
    local keep=() name
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE PIP_CERT \
        CARGO_HTTP_CAINFO REQUESTS_CA_BUNDLE PIP_INDEX_URL PG_MAJOR T; do
        if [ -n "${!name:-}" ]; then keep+=("$name=${!name}"); fi
    done
    chroot "$bare" env -i "${keep[@]}" HOME=/root LANG=C.UTF-8 USER=root \
        PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

image() {
    say "docker/build.sh"
    inside /src/docker/build.sh /out
    say "docker/prepare-server.sh"
    inside mkdir -p /usr/local/lib/copymatch
    inside sh -c 'cd /src/docker && cp prepare-server.sh entrypoint.sh healthcheck.sh /usr/local/lib/copymatch/'
    inside /usr/local/lib/copymatch/prepare-server.sh
    inside cp -a /out/. /
    say "docker/entrypoint.sh"
    inside setpriv --reuid postgres --regid postgres --init-groups /usr/local/lib/copymatch/entrypoint.sh \
        >"$bare/entrypoint.log" 2>&1 </dev/null &
    local server=$! healthy=
    for _ in $(seq 60); do
        if inside /usr/local/lib/copymatch/healthcheck.sh 2>/dev/null; then
            healthy=yes
            break
        fi
        sleep 1
    done
    if [ -n "$healthy" ]; then say "healthy"; else tail -n 30 "$bare/entrypoint.log" >&2; fi
    [ -n "$healthy" ] || die "the server did not become healthy"
    # The server itself: a background job of a script, like the one that waits for it, ignores this signal.
    kill -INT "$(head -n 1 "$bare/var/lib/copymatch/data/postmaster.pid")"
    wait "$server" || true
}

# Installs a package as anybody would, with what Debian makes of it: a cluster "main", run by the user postgres.
try_package() {
    local file=$1 name cluster=/etc/postgresql/$PG_MAJOR/main
    name=$(dpkg-deb --field "$file" Package)
    cp "$file" "$bare/tmp/${name}.deb"
    cp "$ROOT/scripts/package-try.sql" "$bare/tmp/"
    say "installing $name into $bare"
    inside apt-get update -qq
    inside env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "/tmp/$name.deb" >"$bare.log" 2>&1 || {
        tail -n 20 "$bare.log" >&2
        die "$name was not installed"
    }
    inside dpkg --verify "$name"
    try_library "$cluster" "shared_preload_libraries = ''"
    try_library "$cluster" "shared_preload_libraries = 'copymatch'"
    inside env DEBIAN_FRONTEND=noninteractive dpkg --purge "$name" >>"$bare.log" 2>&1
    if [ -n "$(inside find / -xdev -name '*copymatch*' \
        -not -path '/src/*' -not -path '/proc/*' -not -path '/tmp/*' -not -path '/root/*')" ]; then
        die "files of $name are left"
    fi
    say "$name was installed, searched with and removed"
}

try_library() { # try_library CLUSTER SETTING: a server with this setting, from a package that is installed
    say "searching with $2"
    [ -d "$bare$1" ] || inside pg_createcluster "$PG_MAJOR" main >/dev/null
    printf '%s\n' "$2" >"$bare$1/conf.d/copymatch.conf"
    inside pg_ctlcluster "$PG_MAJOR" main restart
    inside setpriv --reuid postgres --regid postgres --init-groups psql -X -q -d postgres \
        -c 'DROP DATABASE IF EXISTS tried' -c "CREATE DATABASE tried ENCODING 'UTF8' TEMPLATE template0"
    inside setpriv --reuid postgres --regid postgres --init-groups psql -X -q -d tried -f /tmp/package-try.sql
    inside pg_ctlcluster "$PG_MAJOR" main stop
    rm "$bare$1/conf.d/copymatch.conf"
}

install_make() {
    inside sh -c 'command -v make >/dev/null || { apt-get update -qq && apt-get install -y -qq make >/dev/null; }'
}

# What the private copy of PostgreSQL is to have as well: it is copied anew.
more_packages() {
    [ -n "${BARE_PACKAGES:-}" ] || return 0
    local packages
    read -ra packages <<<"$BARE_PACKAGES"
    if inside dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then return; fi
    inside /src/scripts/packages.sh
    inside env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    rm -f "$bare"/src/.local/pgsql/.copied-*
}

case $what in
    image) image ;;
    packages)
        inside /src/scripts/packages.sh
        more_packages
        ;;
    package)
        install_make
        inside make -C /src package
        ;;
    try) try_package "${2:?which package?}" ;;
    setup | test | demo)
        install_make
        if [ "$what" = setup ]; then more_packages; fi
        inside make -C /src "$what"
        ;;
    all)
        image
        install_make
        inside make -C /src demo
        inside make -C /src test
        ;;
    *) die "unknown part '$what': image, packages, setup, test, demo, package or try" ;;
esac
