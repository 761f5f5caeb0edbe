#!/usr/bin/env bash
# A private copy of PostgreSQL (Debian's, or PG_CONFIG's) below .local/pgsql. PostgreSQL finds its libraries
# and its share folder relative to its own program file, so extensions put into the copy load there and nowhere
# else, and no root is needed.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
prepare_local

bin=$("$SYSTEM_PG_CONFIG" --bindir)
stamp=$PREFIX/.copied-$PG_MAJOR
version="$("$bin/postgres" --version) $bin"
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$version" ]; then
    exit 0
fi

say "copying $("$bin/postgres" --version) to $PREFIX"
"$ROOT/scripts/cluster.sh" stop
rm -rf "$PREFIX/lib/postgresql/$PG_MAJOR" "$PREFIX/share/postgresql/$PG_MAJOR"
mkdir -p "$PREFIX/lib/postgresql" "$PREFIX/share/postgresql" "$PREFIX/include"
copied=$PREFIX/lib/postgresql/$PG_MAJOR
case $bin in
    */lib/postgresql/"$PG_MAJOR"/bin) # Debian's layout: /usr/lib/postgresql/15 and /usr/share/postgresql/15
        share=$("$SYSTEM_PG_CONFIG" --sharedir)
        cp -a "${bin%/bin}" "$copied"
        # Debian keeps some of the share folder as links into /etc: real files in the copy.
        cp -aL "$share" "$PREFIX/share/postgresql/$PG_MAJOR"
        ln -sfn /usr/include/postgresql "$PREFIX/include/postgresql"
        ;;
    /usr/bin | /usr/local/bin | /bin)
        die "$bin has other programs beside PostgreSQL's: only one in a folder of its own can be copied" ;;
    *) # everybody else's: bin, lib and share in one folder
        mkdir -p "$copied"
        for folder in bin lib share; do cp -aL "${bin%/bin}/$folder" "$copied/"; done
        ;;
esac
# LLVM's bitcode of PostgreSQL itself serves only cross-module inlining in the JIT; it is half of the copy.
find "$copied" -type d -name bitcode -prune -exec rm -rf {} +
chmod 755 "$LOCAL" "$PREFIX" "$PREFIX"/{lib,share}{,/postgresql}
chmod -R a+rX "$copied"

for found in "$("$PG_BIN/pg_config" --pkglibdir)" "$("$PG_BIN/pg_config" --sharedir)"; do
    case $found in
        "$PREFIX"/*) ;;
        *) die "the copied PostgreSQL looks for its files in $found, outside $PREFIX" ;;
    esac
done
printf '%s\n' "$version" >"$stamp"
