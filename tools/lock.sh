#!/usr/bin/env bash
# Writes the three lock files anew from the ranges in pyproject.toml.
#
#   tools/lock.sh              keep what is locked, change only what pyproject.toml now asks for
#   tools/lock.sh --upgrade    take the newest versions inside the ranges
#
# Every option given is passed on to `uv pip compile`. Indexes come from your own uv settings; none is
# written into a lock. Afterwards run tests/test_environment.py.
set -euo pipefail
cd "$(dirname "$0")/.."
inputs=$(mktemp -d)
trap 'rm -r "$inputs"' EXIT

# PathML 3.0.8 asks for exactly this torch: with it in all three locks, all train the same numbers.
printf '%s\n' 'torch ==2.12.0' 'torchvision ==0.27.0' >"$inputs/torch-of-pathml"

# albumentations asks for opencv-python-headless, grad-cam for opencv-python, PathML for opencv-contrib-python
# ==4.8.1.78, and all write the module cv2. Without PathML the headless one serves (no libGL on the machine
# needed). The PathML environment holds none of the three, but the one package that serves all: PathML's
# version with its extra modules, built without a display.
printf '%s\n' 'opencv-python ; sys_platform == "never"' >"$inputs/headless-opencv"
printf '%s\n' 'opencv-python-headless ; sys_platform == "never"' \
  'opencv-contrib-python ; sys_platform == "never"' >"$inputs/opencv-of-pathml"
printf '%s\n' 'opencv-contrib-python-headless ==4.8.1.78' >"$inputs/one-opencv.in"

lock() { # lock FILE EXTRAS OPTION...: compile pyproject.toml with those extras into FILE
  local file=$1 extras=$2 body="$inputs/$1" extra
  shift 2
  if [ -f "$file" ]; then cp "$file" "$body"; fi
  for extra in ${extras//,/ }; do set -- "$@" --extra "$extra"; done
  uv pip compile pyproject.toml "$@" --constraint "$inputs/torch-of-pathml" --override "$inputs/headless-opencv" --generate-hashes \
    --quiet --no-python-downloads --no-header --output-file "$body" >/dev/null
  {
    echo "# Made by tools/lock.sh from pyproject.toml with the extras $extras; do not edit."
    sed -e "s|$inputs/||" -e '/^# Made by tools/d' "$body"
  } >"$inputs/done"
  mv "$inputs/done" "$file"
  echo "$file: $(grep -c '==.*\\$' "$file") entries"
}

linux=(--python-version 3.11 --python-platform x86_64-manylinux_2_28)
lock requirements.lock cpu,dev --universal --python-version 3.11 "$@"
lock requirements-gpu.lock gpu,dev "${linux[@]}" "$@"
lock requirements-pathml.lock cpu,dev,pathml "${linux[@]}" "$@" \
  "$inputs/one-opencv.in" --override "$inputs/opencv-of-pathml"
