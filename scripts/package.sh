#!/usr/bin/env bash
# A Debian package of the extension for one major (PG_MAJOR), by debhelper, and what lintian says of it.
#
#   package.sh        compile, pack, lint: into target/debian/MAJOR
#   package.sh path   where that package is
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

folder=$CARGO_TARGET_DIR/debian/$PG_MAJOR
package=postgresql-$PG_MAJOR-copymatch
version=$(dpkg-parsechangelog --file "$ROOT/debian/changelog" --show-field Version 2>/dev/null ||
    sed -n '1s/^copymatch (\(.*\)) .*/\1/p' "$ROOT/debian/changelog")
file=$folder/${package}_${version}_$(dpkg --print-architecture).deb

pack() {
    "$ROOT/scripts/packages.sh" package
    local tree=$folder/copymatch-${version%-*}
    rm -rf "$folder"
    mkdir -p "$tree"
    cp -a "$ROOT"/{debian,docs,README.md,CHANGELOG.md} "$tree/"
    sed "s/@PG_MAJOR@/$PG_MAJOR/g" "$ROOT/debian/control.in" >"$tree/debian/control"
    mv "$tree/debian/lintian-overrides" "$tree/debian/$package.lintian-overrides"
    say "packing $package $version"
    (cd "$tree" && COPYMATCH_SOURCE=$ROOT dpkg-buildpackage --build=binary --no-sign >"$folder/log" 2>&1) || {
        tail -n 40 "$folder/log" >&2
        die "the package was not built; all of it is in $folder/log"
    }
    rm -rf "$tree"
    # As root it warns that root runs it.
    lintian --allow-root --fail-on error,warning --tag-display-limit 0 "$folder"/*.changes ||
        die "lintian found something in $file"
    say "$file ($(du -h "$file" | cut -f1)); lintian is content"
}

case ${1:-} in
    "") pack ;;
    path) printf '%s\n' "$file" ;;
    *) die "unknown part '$1'" ;;
esac
