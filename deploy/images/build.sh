#!/bin/sh
# Builds an image for each member named as an argument: build.sh keys agent-gateway ...
# ENGINE is docker, podman or buildah, by default the first that answers. BASE is an image with the same Python as .venv
# and its venv module; without one, a base is made from Debian's packages. Images are named twinline/MEMBER:VERSION.
set -eu
cd "$(dirname "$0")/../.."
here=deploy/images
python=$PWD/.venv/bin/python

find_engine() {
  if docker info >/dev/null 2>&1; then echo docker
  elif command -v podman >/dev/null; then echo podman
  else tools/programs.sh buildah >&2 && echo buildah
  fi
}

ENGINE=${ENGINE:-$(find_engine)}
case $ENGINE in
  docker) build='docker build' look='docker image inspect' ;;
  podman) build='podman build' look='podman image inspect' ;;
  # Where we are in a container ourselves there are no namespaces to be had; a chroot is enough to install packages in.
  buildah) export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"; build='buildah bud' look='buildah inspect --type image' ;;
  *) echo "twinline: '$ENGINE' builds no images: set ENGINE to docker, podman or buildah" >&2; exit 1 ;;
esac

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Debian 12 with Python, made once, from Debian's own packages and no registry of images.
make_base() {
  tools/programs.sh mmdebstrap
  echo "twinline: making $1 from Debian's packages"
  mkdir "$folder/base"
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$folder/base/root.tar"
  printf 'FROM scratch\nADD root.tar /\n' >"$folder/base/Containerfile"
  $build --tag "$1" --file "$folder/base/Containerfile" "$folder/base" >"$folder/log" 2>&1 || failed "$1"
}

failed() {
  tail -n 20 "$folder/log" >&2
  echo "twinline: $1 could not be built; the lines above say why" >&2
  exit 1
}

if [ -z "${BASE:-}" ]; then
  BASE=localhost/twinline/base:bookworm
  $look "$BASE" >/dev/null 2>&1 || make_base "$BASE"
fi

# The build backend is in the lock, and found on the PATH: nothing outside the lock is fetched.
PATH="${python%/*}:$PATH" uv build --quiet --all-packages --wheel --no-build-isolation --python "$python" --out-dir "$folder/wheels"

version=$("$python" -c "import sys; print('%d.%d' % sys.version_info[:2])")
for member; do
  module=twinline_$(echo "$member" | tr - _)
  image=localhost/twinline/$member:$("$python" -c "from importlib.metadata import version; print(version('twinline-$member'))")
  "$python" $here/context.py "twinline-$member" "$folder/wheels" "$folder/$member"
  "$python" -m pip download --quiet --disable-pip-version-check --only-binary :all: --require-hashes \
    --requirement "$folder/$member/requirements.txt" --dest "$folder/$member/wheels" >"$folder/log" 2>&1 || failed "$image"
  $build --build-arg BASE="$BASE" --build-arg MODULE="$module" --build-arg PYTHON="$version" --tag "$image" --file $here/Containerfile "$folder/$member" \
    >"$folder/log" 2>&1 || failed "$image"
  echo "twinline: built $image"
done
