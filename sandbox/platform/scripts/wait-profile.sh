#!/usr/bin/env bash
# Wait until every Application that syncs by itself is Synced and Healthy.
set -euo pipefail

# Synced by a person, so waiting for them would never end.
manual_apps="coder-chat coder-fim"

deadline=$((SECONDS + ${TIMEOUT:-1800}))

is_manual() {
  local app
  for app in $manual_apps; do
    [[ "$app" == "$1" ]] && return 0
  done
  return 1
}

while true; do
  waiting=()
  while read -r app sync health; do
    is_manual "$app" && continue
    [[ "$sync" == "Synced" && "$health" == "Healthy" ]] || waiting+=("$app")
  done < <(kubectl -n argocd get applications --no-headers \
    -o custom-columns=N:.metadata.name,S:.status.sync.status,H:.status.health.status)

  [[ ${#waiting[@]} -eq 0 ]] && exit 0
  if ((SECONDS > deadline)); then
    echo "still waiting for: ${waiting[*]}" >&2
    exit 1
  fi
  sleep 10
done
