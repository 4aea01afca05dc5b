#!/usr/bin/env bash
# Keeps a run as the reference that reruns are compared with: tables, charts and manifest, no tissue images.
#
#   tools/keep_reference.sh demo        results/demo -> results/reference/demo
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:?name a profile, e.g. demo}
source=results/$profile target=results/reference/$profile
[ -f "$source/manifest.json" ] || { echo "error: $source has no manifest; run the profile first." >&2; exit 2; }
rm -rf "$target"
mkdir -p "$target"
cp -r "$source/tables" "$source/figures" "$source/manifest.json" "$target"
