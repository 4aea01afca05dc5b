#!/usr/bin/env bash
# One command for the study.
#
#   ./run_all.sh                                        profile demo: everything synthetic, minutes
#   ./run_all.sh params/FILE.yaml [--set key.path=value …] [--cores N]
#   ./run_all.sh params/FILE.yaml … --dry-run           the jobs of a run, and what each asks for; starts nothing
#   ./run_all.sh params/FILE.yaml … --cluster FOLDER    on a cluster: profiles/slurm, profiles/kubernetes
#   ./run_all.sh verify [results/FOLDER …]              whether results are what their run left
#   ./run_all.sh verify --rerun [params/FILE.yaml …]    whether a rerun gives what is kept under results/reference
#   ./run_all.sh slides FOLDER [params/FILE.yaml] --out FOLDER [--set …]
#                                                       whole slides, or patches with their places, to records
#   ./run_all.sh checkpoint FILE.pth                    what one of the authors' checkpoints settles
#   ./run_all.sh doctor [params/FILE.yaml [--set …]]    what is wrong with this machine for this study; installs nothing
#   ./run_all.sh torchrun [torchrun options] -m lgffem_core.systems.lgffem params/FILE.yaml --strategy a|b|c [--variant V]
#                                                       one strategy by itself, on several GPUs or machines
#   ./run_all.sh test [pytest options]                  the tests; with --cov=lgffem_core, which lines they run
#   ./run_all.sh test-pathml [pytest options]           the tests in PathML's environment, PathML's own included
#
# The first call makes .venv from requirements.lock (LGFFEM_LOCK=requirements-gpu.lock for FAISS on the GPU). It needs
# Python 3.11 or newer and, that once, a connection to your package index; everything else comes with the lock.
set -euo pipefail
# Python takes no modules and settings from the current folder or the user's environment, and glibc keeps what memory
# it has (see lgffem_core/base/surroundings.py).
chosen=${PYTHON:-}
declare -x LGFFEM_UNHEEDED="${!PYTHON@}" # for doctor to name
unset CDPATH "${!PYTHON@}"
PYTHON=$chosen
export PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1 PYTHONUTF8=1 NO_ALBUMENTATIONS_UPDATE=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() { # fail MESSAGE: one sentence, and exit code 2
  echo "error: $*" >&2
  exit 2
}

find_python() { # find_python MINIMUM [MAXIMUM]: a Python within these minor versions of 3
  local candidate minor range=${2:+ to 3.$2}
  [ "${2:-}" != "$1" ] || range=
  [ -n "${2:-}" ] || range=" or newer"
  for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13; do
    minor=$("$candidate" -c 'import sys; print(sys.version_info[1] if sys.version_info[0] == 3 else 0)' 2>/dev/null) || minor=0
    if [ "$minor" -ge "$1" ] && [ "$minor" -le "${2:-99}" ]; then
      command -v "$candidate"
      return
    fi
    [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is no Python 3.$1$range; name another, or unset PYTHON."
  done
  fail "no Python 3.$1$range found; install one, or name it: PYTHON=/path/to/python $0"
}

is_complete() { # is_complete ENVIRONMENT STAMP
  [ "$(cat "$1/.complete" 2>/dev/null)" = "$2" ] && "$1/bin/python" -c 'from importlib.util import find_spec; assert find_spec("lgffem_core")' 2>/dev/null # a slip in it is not this
}

set_up() { # set_up ENVIRONMENT LOCK MINIMUM [MAXIMUM]: make the environment unless it is there and complete
  local environment="$here/$1" lock="$here/$2" python stamp
  [ -f "$lock" ] || fail "$2 is not in $here; set LGFFEM_LOCK to one of the requirements*.lock files."
  stamp=$(cat "$lock" "$here/pyproject.toml" | cksum)
  if ! is_complete "$environment" "$stamp"; then
    python=$(find_python "$3" "${4:-}")
    { exec 9<>"$environment.lock"; } 2>/dev/null || fail "$here cannot be written, where $1 belongs; clone the study into a folder of yours."
    "$python" -I "$here/tools/take_lock.py" $$ "$1" # one call makes it; the others wait here
    is_complete "$environment" "$stamp" || install_packages "$@"
    exec 9>&-
  fi
  [ -s "$environment/.made-from" ] || { basename "$lock" >"$environment/.made-from"; } 2>/dev/null || true
}

install_packages() { # install_packages ENVIRONMENT LOCK: with $python, from set_up
  local uv
  echo "setting up $1 from $2 (once; the download is about 3 GB)" >&2
  rm -rf "$environment"
  "$python" -m venv "$environment" || fail "Python's venv module does not work here; on Debian install python3-venv."
  uv=$(command -v uv || true)
  if [ -z "$uv" ]; then
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check uv
    uv="$environment/bin/uv"
  fi
  "$uv" pip install --quiet --python "$environment/bin/python" --no-deps --require-hashes -r "$lock"
  "$uv" pip install --quiet --python "$environment/bin/python" --offline --no-deps --no-build-isolation -e "$here"
  # Python keeps packages as it has compiled them, and numba UMAP: once here, not in each of the first stages.
  "$environment/bin/python" -c 'import albumentations, lightning_fabric, numpy, papermill, pytorch_metric_learning.losses, snakemake.cli, timm
from lgffem_core.config.params import Projection
from lgffem_core.retrieval.projection import project
project(numpy.eye(9), Projection())' 2>/dev/null || true
  basename "$lock" >"$environment/.made-from" # what results then say they were made with
  echo "$stamp" >"$environment/.complete"
}

parallel=(-n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder) # a process for each core, files whole; -n 0 for one

case "${1:-}" in
  -h | --help) # the head of this file; nothing is set up
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    ;;
  doctor) # an old Python will do, which the doctor then names
    python=$(find_python 11 2>/dev/null) || python=$(find_python 8 2>/dev/null) || find_python 11
    exec "$python" -I "$here/tools/doctor.py" "${@:2}"
    ;;
  torchrun)
    set_up .venv "${LGFFEM_LOCK:-requirements.lock}" 11
    exec "$here/.venv/bin/python" -m torch.distributed.run "${@:2}"
    ;;
  test)
    set_up .venv "${LGFFEM_LOCK:-requirements.lock}" 11
    cd "$here"
    exec "$here/.venv/bin/python" -m pytest "${parallel[@]}" "${@:2}"
    ;;
  test-pathml)
    command -v javac >/dev/null || fail "PathML needs a Java development kit (javac); on Debian install default-jdk."
    set_up .venv-pathml requirements-pathml.lock 11 11
    cd "$here"
    exec "$here/.venv-pathml/bin/python" -m pytest "${parallel[@]}" "${@:2}"
    ;;
  *)
    set_up .venv "${LGFFEM_LOCK:-requirements.lock}" 11
    exec "$here/.venv/bin/python" -m lgffem_core "$@"
    ;;
esac
