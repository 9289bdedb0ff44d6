#!/bin/sh
# Put Fashion-MNIST's IDX files where siamese_keras looks for them, from Debian's package, without
# root. If the data are there already, or there is no apt-get, there is nothing to do: TensorFlow
# Datasets downloads them on first use.
#
#   sh tools/fetch-data.sh PYTHON
set -eu
python=${1:-python3}
folder=${XDG_CACHE_HOME:-$HOME/.cache}/siamese_keras
package=dataset-fashion-mnist

if "$python" -c 'import sys; from siamese_keras.data.local import find_local; sys.exit(not find_local())'
then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "Fashion-MNIST will be downloaded by TensorFlow Datasets."
    exit 0
fi

echo "Fetching Fashion-MNIST (30 MB, Debian's package $package) into $folder/fashion-mnist"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! apt-get download --quiet "$package" >log 2>&1; then
    # The machine has no package lists yet: make new ones, which needs no root.
    mkdir -p state/lists/partial cache/archives/partial
    set -- -o Dir::State="$work/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$work/cache" -o Debug::NoLocking=1
    if ! { apt-get "$@" --quiet update && apt-get "$@" --quiet download "$package"; } >>log 2>&1; then
        echo "apt-get could not fetch $package; TensorFlow Datasets will download it instead." >&2
        tail -n 3 log >&2
        exit 0
    fi
fi
dpkg -x "$package"_*.deb unpacked
mkdir -p "$folder"
rm -rf "$folder/fashion-mnist.new"
cp -R unpacked/usr/share/datasets/fashion-mnist "$folder/fashion-mnist.new"
rm -rf "$folder/fashion-mnist"
mv "$folder/fashion-mnist.new" "$folder/fashion-mnist"
