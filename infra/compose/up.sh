#!/bin/sh
# make compose-up: secrets, the stack in its order, the first models; ends with a call to copy.
set -eu
cd "$(dirname "$0")/../.."
. infra/compose/clients.sh
if [ -f .env ]; then # as Compose reads it: what is set already wins
    while IFS='=' read -r name value || [ -n "$name" ]; do
        case $name in '' | [!A-Za-z_]* | *[!A-Za-z0-9_]*) continue ;; esac
        case $value in \"*\" | \'*\') value=${value#?} value=${value%?} ;; esac
        eval "[ -n \"\${$name+set}\" ]" || export "$name=$value"
    done < .env
fi
compose=$COMPOSE
infra/secrets.sh "${MLCP_SECRETS:-./secrets}"
COMPOSE_PROFILES=${PROFILES:-${COMPOSE_PROFILES:-core}}
export COMPOSE_PROFILES

$compose up --detach
deadline=$(($(date +%s) + ${COMPOSE_WAIT_S:-600}))
for service in api reconciler worker ingest shipper models router mlflow-gate; do
    until [ "$($DOCKER inspect --format '{{.State.Health.Status}}' "$($compose ps --quiet "$service")" 2> /dev/null)" = healthy ]; do
        [ "$(date +%s)" -lt "$deadline" ] || { $compose logs --tail 20 "$service" >&2; echo "mlcp: $service is not ready" >&2; exit 1; }
        sleep 1
    done
    echo "$service: ready"
done

COMPOSE_PROFILES=$COMPOSE_PROFILES,tools $compose run --rm -T first-models
cat <<END
The control plane is ready.

  admin API    http://${MLCP_API_ADDRESS:-127.0.0.1:8000}/docs
  predictions  http://${MLCP_ROUTER_ADDRESS:-127.0.0.1:8080}/ml/<model>/predict
  MLflow       http://${MLCP_MLFLOW_ADDRESS:-127.0.0.1:5000}   (any name, a key as the password)
  keys         $compose exec -T api cat /var/lib/mlcp/keys/{admin,approver,predictor}.key

A prediction of churn, with its own example as the body:

  KEY="Authorization: Bearer \$($compose exec -T api cat /var/lib/mlcp/keys/predictor.key)"
  curl -s http://${MLCP_ROUTER_ADDRESS:-127.0.0.1:8080}/ml/churn/example -H "\$KEY" |
    curl -s http://${MLCP_ROUTER_ADDRESS:-127.0.0.1:8080}/ml/churn/predict -H "\$KEY" \\
      -H "Content-Type: application/json" -d @-
END
