#!/usr/bin/env bash
# A private copy of Debian's PostgreSQL below .local/pgsql. PostgreSQL finds its libraries and its share folder relative
# to its own program file, so extensions put into the copy load there and nowhere else, and no root is needed.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare_local

source_lib=/usr/lib/postgresql/$PG_MAJOR
source_share=/usr/share/postgresql/$PG_MAJOR
stamp=$PREFIX/.copied-$PG_MAJOR
version=$("$source_lib/bin/postgres" --version)
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$version" ]; then
    exit 0
fi

say "copying $version to $PREFIX"
"$ROOT/scripts/cluster.sh" stop
rm -rf "$PREFIX/lib/postgresql/$PG_MAJOR" "$PG_SHARE"
mkdir -p "$PREFIX/lib/postgresql" "$PREFIX/share/postgresql" "$PREFIX/include"
cp -a "$source_lib" "$PREFIX/lib/postgresql/$PG_MAJOR"
# LLVM's bitcode of PostgreSQL itself serves only cross-module inlining in the JIT; it is half of the copy.
rm -rf "$PG_PKGLIB/bitcode" "$PG_SHARE"
# Debian keeps some of the share folder as links into /etc: real files in the copy.
cp -aL "$source_share" "$PG_SHARE"
ln -sfn /usr/include/postgresql "$PREFIX/include/postgresql"
chmod 755 "$LOCAL" "$PREFIX" "$PREFIX"/{lib,share}{,/postgresql}

for found in "$("$PG_BIN/pg_config" --pkglibdir)" "$("$PG_BIN/pg_config" --sharedir)"; do
    case $found in
        "$PREFIX"/*) ;;
        *) die "the copied PostgreSQL looks for its files in $found, outside $PREFIX" ;;
    esac
done
printf '%s\n' "$version" >"$stamp"
