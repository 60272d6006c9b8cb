#!/bin/sh
# NAME: VERSION
# PLATFORM: linux-64
# A stand-in for the Miniforge installer, for tests only. It follows the options, the messages and the exit
# statuses of the real one (made by conda's constructor).

PREFIX="${HOME:-/opt}/miniforge3"
BATCH=0
FORCE=0
UPDATE=0

usage() {
    cat <<END
usage: $0 [options]

Installs the stand-in for Miniforge VERSION

-b           run install in batch mode (without manual intervention),
             it is expected the license terms (if any) are agreed upon
-f           no error if install prefix already exists
-h           print this help message and exit
-p PREFIX    install prefix, defaults to $PREFIX, must not contain spaces.
-s           skip running pre/post-link/install scripts
-u           update an existing installation
END
}

while getopts "bfhp:su" option; do
    case "$option" in
        b) BATCH=1 ;;
        f) FORCE=1 ;;
        h) usage; exit 2 ;;
        p) PREFIX="$OPTARG" ;;
        s) ;;
        u) FORCE=1; UPDATE=1 ;;
        *) echo "ERROR: did not recognize option, please try -h" >&2; exit 1 ;;
    esac
done

if [ "$BATCH" = 0 ]; then
    echo "ERROR: this stand-in runs in batch mode only, please add -b" >&2
    exit 1
fi
if ! printf '%s\n' "$PREFIX" | grep -Eq '^/[A-Za-z0-9._/+@-]+$'; then
    echo "ERROR: Cannot install into '$PREFIX': give an absolute path without spaces" >&2
    exit 1
fi
if [ "$FORCE" = 0 ] && [ -e "$PREFIX" ]; then
    echo "ERROR: File or directory already exists: '$PREFIX'" >&2
    echo "If you want to update an existing installation, use the -u option." >&2
    exit 1
fi

payload() { tail -n +FIRST_LINE "$0"; }
if [ "$(payload | sha256sum | cut -d ' ' -f 1)" != "PAYLOAD_SHA256" ]; then
    echo "ERROR: the installer $0 is incomplete or damaged" >&2
    exit 1
fi

echo "PREFIX=$PREFIX"
mkdir -p "$PREFIX" || { echo "ERROR: Could not create directory: '$PREFIX'" >&2; exit 1; }
echo "Unpacking payload ..."
payload | tar -xzf - -C "$PREFIX" --no-same-owner || { echo "ERROR: could not extract the payload" >&2; exit 1; }
echo
echo "Installing base environment..."
echo
# The packages were linked into another prefix; these are the text files that name it.
while read -r file; do
    sed -i "s|BUILD_PREFIX|$PREFIX|g" "$PREFIX/$file" || exit 1
done < "$PREFIX/conda-meta/.relocate"
mkdir -p "$PREFIX/envs" "$PREFIX/pkgs"
if [ "$UPDATE" = 1 ]; then echo "installation updated."; else echo "installation finished."; fi
exit 0
# The payload, a tar.gz archive of the base prefix, follows.
