#!/usr/bin/env bash
# A sweep on Slurm: `sbatch cluster/slurm.sh sweeps/lambda_grid.py --preset llama31-8b --out /shared/runs`
# in the repository's root. What to change first is marked CHANGE; how to use it: docs/on_a_cluster.md.
#SBATCH --job-name=raycib
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-task=4
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --exclusive
# CHANGE: --partition, --account, and how many nodes and GPUs. Every node has to see this folder.
set -euo pipefail

source .venv/bin/activate # from `make setup`
export HF_HOME=${HF_HOME:-/shared/huggingface} # CHANGE: a folder that every node sees
export HF_HUB_OFFLINE=1 # `raycib fetch PRESET` on a login node has fetched it all
# Who reaches Ray's ports can run any program as you, so all of them ask for a token. It is a file
# that only you can read, in a home that every node sees.
export RAY_AUTH_MODE=token
(umask 077 && ray get-auth-token --generate >/dev/null && chmod 600 ~/.ray/auth_token)
head=$(srun --nodes=1 --ntasks=1 hostname --ip-address | awk '{print $1}')

# One Ray over all nodes, for as long as the sweep runs on the first of them; it ends every Ray of
# yours on them, so the nodes are this job's alone. Stopped or requeued, it goes on with what is
# stored.
exec srun --kill-on-bad-exit=0 ray symmetric-run --address "$head:6379" \
  --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_PER_TASK" \
  --num-gpus "${SLURM_GPUS_PER_TASK:-0}" --disable-usage-stats --resources '{"TRAIN_DRIVER": 1000}' \
  -- python "$@"
