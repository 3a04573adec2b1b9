# Sourced: DOCKER and COMPOSE, where they are not given. DOCKER is the first client on PATH that can build with BuildKit: from
# Docker 23 on that takes a plugin, buildx, which is not always there.
_builds() { DOCKER_BUILDKIT=1 "$1" build --help > /dev/null 2>&1; }

if [ -z "${DOCKER:-}" ]; then
    DOCKER=docker
    if ! _builds docker; then
        for _folder in $(echo "$PATH" | tr : ' '); do
            if [ -x "$_folder/docker" ] && _builds "$_folder/docker"; then DOCKER=$_folder/docker; break; fi
        done
    fi
fi
if [ -z "${COMPOSE:-}" ]; then
    if "$DOCKER" compose version > /dev/null 2>&1; then COMPOSE="$DOCKER compose"; else COMPOSE=docker-compose; fi
fi
export DOCKER COMPOSE
