#!/usr/bin/env bash
# A SLURM cluster of this machine alone: the smoke profile runs through it, then without it, and the tables are compared.
#
#   tools/slurm_here.sh [FOLDER]    FOLDER, by default artifacts/slurm, keeps both runs; a second call goes on from there
#
# As root, on a machine that is in no cluster: apt-get install slurm-wlm munge. Nothing is written to /etc or /var;
# the daemons end with the script. Exit codes as of verify --rerun: 0 where all is equal.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=$(realpath -m "${1:-$here/artifacts/slurm}")

fail() { # fail MESSAGE: one sentence, and exit code 2
  echo "error: $*" >&2
  exit 2
}

PATH=$PATH:/usr/sbin
for program in munged slurmctld slurmd sbatch; do
  command -v "$program" >/dev/null || fail "$program is not found; on Debian: apt-get install slurm-wlm munge"
done
[ "$(id -u)" = 0 ] || fail "SLURM's daemons must be started as root."

own=$(mktemp -d) node=$(hostname -s)
end() { # every job and daemon of this script's
  scancel --partition here 2>/dev/null || true
  sleep 1
  # shellcheck disable=SC2046
  kill $(jobs -p) 2>/dev/null || true
  wait
  rm -rf "$own"
}
trap end EXIT
trap 'exit 130' INT TERM

mkdir "$own/spool" "$own/state" "$own/bin"
chmod 755 "$own" # munge wants its socket to be reached by all, and its key by none
(umask 077 && head -c 1024 /dev/urandom >"$own/key")
# Memory is not counted, and more of it is claimed than there may be: what stages ask for is meant for the published
# schedule. Jobs are kept in mind for a day, since there is no database of them.
cat >"$own/slurm.conf" <<END
ClusterName=here
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthInfo=socket=$own/socket
StateSaveLocation=$own/state
SlurmdSpoolDir=$own/spool
SlurmctldPidFile=$own/slurmctld.pid
SlurmdPidFile=$own/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MinJobAge=86400
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=262144
PartitionName=here Nodes=$node Default=YES
END
export SLURM_CONF=$own/slurm.conf
# Snakemake's plugin takes SLURM_* from srun's environment, so that it would look for /etc/slurm.
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$own/bin/srun"
chmod +x "$own/bin/srun"

munged --foreground --key-file "$own/key" --socket "$own/socket" --pid-file "$own/munged.pid" \
  --log-file "$own/munged.log" --seed-file "$own/seed" >"$own/munged.out" 2>&1 &
slurmctld -D >"$own/slurmctld.log" 2>&1 &
slurmd -D >"$own/slurmd.log" 2>&1 &
for _ in {1..60}; do
  [ "$(sinfo --noheader --format %T 2>/dev/null)" != idle ] || break
  sleep 1
done
[ "$(sinfo --noheader --format %T 2>/dev/null)" = idle ] || {
  tail -n 5 "$own"/*.log >&2
  fail "SLURM did not come up within a minute; its last words are above."
}

cp -r "$here/profiles/slurm" "$own/profile"
echo 'slurm-status-command: squeue' >>"$own/profile/config.yaml" # sacct would ask the database
PATH=$own/bin:$PATH LGFFEM_OUTPUT=$folder/cluster "$here/run_all.sh" "$here/params/smoke.yaml" --cluster "$own/profile"
squeue --states all --sort i --format '%.5i %.10T %.4C %.8m %.11l %k' # what SLURM has run
LGFFEM_OUTPUT=$folder/local "$here/run_all.sh" "$here/params/smoke.yaml"
"$here/.venv/bin/python" -I - "$folder"/{local,cluster}/results/smoke <<'END'
import sys
from pathlib import Path

from lgffem_core.run.compare import compare_results, format_comparison

comparison = compare_results(*map(Path, sys.argv[1:]))
print(format_comparison(comparison))
sys.exit(comparison.exit_code)
END
