#!/usr/bin/env bash
# A sweep as a job on this machine: the same three steps as on a cluster, to try them out.
# cluster/laptop.sh [SCRIPT] [OPTIONS OF THE SCRIPT]   PORT=8265 is the dashboard's; it takes two more
set -euo pipefail
cd "$(dirname "$0")/.."

make --no-print-directory setup
export PATH="$PWD/.venv/bin:$PATH"
export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS="http://127.0.0.1:${PORT:=8265}"
unset RAY_ADDRESS
(umask 077 && ray get-auth-token --generate >/dev/null && chmod 600 ~/.ray/auth_token)

log=$(mktemp)
ray start --head --block --disable-usage-stats --node-ip-address=127.0.0.1 --port=0 \
  --dashboard-host=127.0.0.1 --dashboard-port="$PORT" --dashboard-agent-listen-port=$((PORT + 1)) \
  --ray-client-server-port=$((PORT + 2)) --resources='{"TRAIN_DRIVER": 1000}' \
  >"$log" 2>&1 &
head=$!
# Ends this head and nothing else; `ray stop` would end every Ray on the machine.
trap 'kill "$head" 2>/dev/null || true; wait "$head" 2>/dev/null || true; rm -f "$log"' EXIT

# A job needs both the dashboard and the node's agent, which takes longer to start.
until ray job list >/dev/null 2>&1 && : 2>/dev/null </dev/tcp/127.0.0.1/$((PORT + 1)); do
  kill -0 "$head" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.5
done

script=${1:-sweeps/lambda_grid.py}
ray job submit --working-dir . -- python "$script" --out "$PWD/runs" "${@:2}"
