#!/bin/bash
# What compose lets its user see of a project: services on networks that find one another by name, a published port, a
# volume with a name. Each step with its exit code and its output, made alike, as in cli.sh.
#
#   tests/clients/compose.sh HOST IMAGE SCRATCH NETWORK COMPOSE…
#
# HOST is the server (unix:///…), IMAGE the name of a busybox image in a registry that the server can pull from, SCRATCH a
# directory of the caller's, NETWORK the network namespace that the server runs in, COMPOSE… the client: `docker compose`
# with its plugin in SCRATCH/config/cli-plugins, or `docker-compose`.
set -u
HOST=$1 IMAGE=$2 SCRATCH=$3 NETWORK=$4
shift 4
COMPOSE=("$@")
export DOCKER_CONFIG=$SCRATCH/config DOCKER_HOST=$HOST DOCKER_CLI_HINTS=false IMAGE
# 1.29 reads a field of events that the API dropped in 1.52; it asks for no version by itself.
[ "${COMPOSE[0]}" != docker-compose ] || export COMPOSE_API_VERSION=1.41
mkdir -p "$SCRATCH/project" "$DOCKER_CONFIG"
cd "$SCRATCH/project" || exit 2

c() { timeout --foreground 60 "${COMPOSE[@]}" --ansi never -p shop "$@"; }
# What it says on stdout comes or does not.
quietly() { "$@" >/dev/null; }
docker() { timeout --foreground 60 /usr/bin/docker "$@"; }

# From the host's side, where ports are published.
outside() {
    nsenter --net="/run/netns/$NETWORK" python3 -c \
        'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode(), end="")' "$1" 2>/dev/null
}

# Where compose clears the line before it writes one depends on which container's came first.
alike() {
    sed -E -e 's/\x1b\[2K//g' \
        -e 's/\b[0-9a-f]{64}\b/ID/g' -e 's/\b[0-9a-f]{12}\b/SHORT/g' \
        -e "s#$IMAGE#IMAGE#g" -e "s#${IMAGE%:*}#REPO#g" -e "s#$SCRATCH#SCRATCH#g" \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.]+(Z|[+-][0-9:]+( [+-]?[0-9A-Z]+)?)?/TIME/g' \
        -e 's/(Less than a|About an?|[0-9]+) (second|minute|hour)s?( ago)?/AGE\3/g' \
        -e 's/[ \t]*\b[0-9.]+ ?[kKMGT]i?B\b/ SIZE/g' -e 's/shop_store_run_[0-9a-f]+|shop-store-run-[0-9a-f]+/RUN/g' \
        -e 's/\r/<CR>/g' -e 's/[ \t]+$//' -e 's/[ \t]{2,}/  /g' | awk 1
}

# step NAME COMMAND…: runs it and writes down what came of it.
step() {
    local name=$1 code=0
    shift
    "$@" >"$SCRATCH/out" 2>"$SCRATCH/err" </dev/null || code=$?
    printf '## %s\nexit %s\n' "$name" "$code"
    alike <"$SCRATCH/out" | sed 's/^/out: /'
    alike <"$SCRATCH/err" | sed 's/^/err: /'
}

# A step whose lines come in no particular order, and so often as the client looks: services are worked on side by side.
unordered() {
    local lines
    lines=$(step "$@")
    head -n 2 <<<"$lines"
    tail -n +3 <<<"$lines" | sort -u
}

pages() {
    local page
    for page in "$@"; do printf '%s: ' "$page"; outside "$page" || echo "no answer"; done
}

cat >compose.yaml <<'Y'
services:
  store:
    image: ${IMAGE}
    command: ["sh", "-c", "echo of the store > /data/page; echo store is ready; exec httpd -f -h /data"]
    init: true
    volumes:
      - kept:/data
    networks:
      back:
        aliases: [shelf]
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/page"]
      interval: 500ms
      timeout: 5s
      retries: 60
    labels: {part: store}
    stop_grace_period: 2s
  web:
    image: ${IMAGE}
    command: ["sh", "-c", "until wget -q -O /tmp/page http://store/page; do sleep 0.2; done; echo web has it && exec httpd -f -h /tmp"]
    init: true
    depends_on:
      store:
        condition: service_healthy
    environment:
      PLACE: ${PLACE:-front}
    ports: ["127.0.0.1:18080:80"]
    networks: [back, front]
    links: ["store:warehouse"]
    volumes: ["./shown:/shown:ro"]
    stop_grace_period: 2s
networks:
  back: {internal: true}
  front:
    ipam: {config: [{subnet: 10.213.77.0/24}]}
    labels: {side: outer}
volumes:
  kept: {labels: {side: inner}}
Y
mkdir -p shown && echo shown >shown/file

unordered config c config --services
unordered pull c pull -q
unordered "up" c up -d
unordered ps c ps
unordered "what there is" docker ps --filter label=com.docker.compose.project=shop --format '{{.Names}} {{.Image}} {{.Ports}} {{.Label "com.docker.compose.service"}}'
unordered "networks" docker network ls --filter label=com.docker.compose.project=shop --format '{{.Name}} {{.Driver}} {{.Scope}}'
step "a network" docker network inspect --format '{{.Name}} {{.Internal}} {{json .IPAM.Config}} {{index .Labels "side"}} {{len .Containers}} {{range .Containers}}{{.Name}} {{end}}' shop_front
step "the other network" docker network inspect --format '{{.Name}} {{.Internal}} {{.EnableIPv6}} {{len .IPAM.Config}} {{len .Containers}}' shop_back
step "the volume" docker volume inspect --format '{{.Name}} {{.Driver}} {{index .Labels "side"}}' shop_kept
step "port" c port web 80
step "port that is not published" c port web 81
step "from outside" pages http://127.0.0.1:18080/page
step "by name" c exec -T web wget -q -O - http://store/page
step "by alias" c exec -T web wget -q -O - http://shelf/page
step "by link" c exec -T web wget -q -O - http://warehouse/page
step "back by name" c exec -T store wget -q -O - http://web/page
step "a name that is nobody's" c exec -T web sh -c 'timeout 2 nslookup nobody >/dev/null 2>&1 && echo found || echo none'
step "exec's exit code" c exec -T web sh -c 'echo $PLACE; cat /shown/file; exit 4'
step "exec with input" bash -c 'printf abc | "$@"' - timeout 60 "${COMPOSE[@]}" --ansi never -p shop exec -T web cat
unordered logs c logs --no-color
step "logs of one" c logs --no-color --no-log-prefix store
unordered images c images
step "top" bash -c '"$@" | grep -c "[0-9] *httpd -f"' - timeout 60 "${COMPOSE[@]}" -p shop top
unordered "up again" c up -d
PLACE=back unordered "up with another environment" c up -d
step "the new one" c exec -T web sh -c 'echo $PLACE'
step "from outside again" pages http://127.0.0.1:18080/page
unordered "two of one" c up -d --no-recreate --scale store=2
unordered "ps of two" c ps -q
unordered "one again" c up -d --no-recreate --scale store=1
step "pause" c pause store
unordered "ps, paused" docker ps --filter label=com.docker.compose.service=store --format '{{.Names}} {{.State}}'
step "unpause" c unpause store
unordered "restart" c restart -t 2
step "after the restart" c exec -T web wget -q -O - http://store/page
unordered "stop" c stop -t 2
step "while stopped" pages http://127.0.0.1:18080/page
unordered "start" c start
step "after the start" pages http://127.0.0.1:18080/page
step "run" c run --rm -T --no-deps store sh -c 'cat /data/page; hostname >/dev/null; exit 6'
step "run that publishes" c run --rm -T -p 18081:80 --no-deps web sh -c 'echo $PLACE'
step "kill" c kill -s KILL web
step "wait for the kill" sh -c '/usr/bin/docker wait $(/usr/bin/docker ps -aq --filter name=web)'
unordered "ps of all" docker ps -a --filter label=com.docker.compose.project=shop --format '{{.Names}} {{.State}}'
unordered "rm of what was stopped" quietly c rm -f
step "network in use" docker network rm shop_back
unordered "down" c down -t 2
step "the volume stays" docker volume ls -q --filter label=com.docker.compose.project=shop
unordered "up of one" c up -d store
step "its file" c exec -T store cat /data/page
unordered "down with volumes" c down -v -t 2
step "nothing is left" bash -c '/usr/bin/docker ps -aq; /usr/bin/docker network ls -q --filter label=com.docker.compose.project=shop; /usr/bin/docker volume ls -q'

### projects that cannot be
cat >compose.yaml <<'Y'
services:
  one:
    image: ${IMAGE}
    command: ["sleep", "60"]
    networks: {net: {ipv4_address: 10.213.99.9}}
networks:
  net:
    ipam: {config: [{subnet: 10.213.78.0/24}]}
Y
unordered "an address elsewhere" c up -d
unordered "down of that" c down -t 1
cat >compose.yaml <<'Y'
services:
  one:
    image: ${IMAGE}
    command: ["sleep", "60"]
    networks: [net]
networks:
  net: {external: true, name: nothere}
Y
unordered "a network of others that is not there" c up -d
cat >compose.yaml <<'Y'
services:
  one: {image: "${IMAGE}", command: ["nosuchthing"]}
Y
unordered "a command that is not there" c up -d
unordered "down of that too" c down -t 1
cat >compose.yaml <<'Y'
services:
  first: {image: "${IMAGE}", command: ["sh", "-c", "sleep 1; echo first; exit 3"]}
  second:
    image: ${IMAGE}
    command: ["echo", "second"]
    depends_on: {first: {condition: service_completed_successfully}}
Y
unordered "one that fails before another" c up -d
unordered "and down" c down -t 1
unordered "up in the foreground" quietly c up --abort-on-container-exit --exit-code-from first first
unordered "and down at last" c down -t 1
