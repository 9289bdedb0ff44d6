#!/bin/bash
# Trains on two nodes that share a file system, and goes on after the time limit:
#
#     sbatch examples/slurm.sh
#SBATCH --job-name=siamese
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -eu

if [ -d runs/photos/checkpoints ]; then
  options=(--resume runs/photos)
else
  options=(--run-dir runs/photos --dataset folder --data-dir photos --preset many-classes)
fi

port=$((20000 + SLURM_JOB_ID % 20000))
workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$port\"/" | paste -sd,)
export workers

# shellcheck disable=SC2016  # each task expands it
srun bash -c '
  task="{\"type\": \"worker\", \"index\": $SLURM_PROCID}"
  export TF_CONFIG="{\"cluster\": {\"worker\": [$workers]}, \"task\": $task}"
  exec python -m siamese_keras.train "$@"
' train "${options[@]}" && exit

if [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit 1
