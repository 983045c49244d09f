#!/usr/bin/env bash
# Two hosts on one laptop: two network namespaces that play hosts, a bridge that plays their network, and one overlay
# network across them. Everything happens in namespaces of this script's own; when it ends, all of it is gone.
#
#   ./two-hosts.sh             hosts that are named by hand
#   ./two-hosts.sh etcd        hosts that share an etcd (Debian: apt-get install etcd-server)
#   ./two-hosts.sh encrypted   the same, and what containers say to each other is encrypted on the cable
#
# Needs root, iproute2, and rnet ($RNET, or in the path, or target/release/rnet).
set -euo pipefail
RNET=${RNET:-$(command -v rnet || echo "$(dirname "$(readlink -f "$0")")/../../target/release/rnet")}
export RNET
if [ -z "${INSIDE:-}" ]; then
    exec env INSIDE=1 unshare --net --mount --pid --fork --kill-child --mount-proc "$0" "$@"
fi
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '%s$ %s\n' "$1" "${*:2}"; }
# Not `ip netns exec`: that gives each command mounts of its own, and the sandboxes that rnet makes would go with them.
inside() { nsenter --net="/run/netns/$1" -- "${@:2}"; }
rnet_on() {
    show "$1" rnet "${@:2}"
    RNET_ROOT=/run/$1/root RNET_RUN=/run/$1/run RNET_HOST_NAME=$1 inside "$1" "$RNET" "${@:2}"
}

say 'Two hosts, 198.51.100.1 and 198.51.100.2, on one cable'
ip link add cable type bridge
ip link set cable up
ip address add 198.51.100.254/24 dev cable
for n in 1 2; do
    ip netns add "h$n"
    mkdir -p "/run/h$n"
    ip link add "h$n" type veth peer name eth0 netns "h$n"
    ip link set "h$n" master cable up
    ip -n "h$n" link set lo up
    ip -n "h$n" link set eth0 up
    ip -n "h$n" address add "198.51.100.$n/24" dev eth0
    ip -n "h$n" route add default via 198.51.100.254
    # A container is any network namespace.
    ip netns add "c$n"
done

encrypted=()
[ "${1:-}" != encrypted ] || encrypted=(-o encrypted)
if [ -n "${1:-}" ]; then
    say 'A store, and an agent on each host'
    etcd --data-dir /run/etcd --listen-client-urls http://0.0.0.0:2379 \
        --advertise-client-urls http://198.51.100.254:2379 --logger zap --log-level error &
    until (exec 3<>/dev/tcp/198.51.100.254/2379) 2>/dev/null; do :; done
    for n in 1 2; do
        RNET_ROOT=/run/h$n/root RNET_RUN=/run/h$n/run RNET_HOST_NAME=h$n RNET_HOST_ADDRESS=198.51.100.$n \
            inside "h$n" "$RNET" agent --foreground --store etcd://198.51.100.254:2379 &
    done
    until [ "$(rnet_on h1 host ls -q 2>/dev/null | grep -vc '\$')" = 2 ]; do :; done
    rnet_on h1 host ls
    say 'A network, made on one host and known on both'
    rnet_on h1 network create -d overlay "${encrypted[@]}" --subnet 10.9.0.0/24 ov
    until rnet_on h2 network inspect ov >/dev/null 2>&1; do :; done
else
    say 'A network, told to both hosts by hand: each gives out its own half'
    rnet_on h1 network create -d overlay --subnet 10.9.0.0/24 --ip-range 10.9.0.0/25 \
        -o peers=198.51.100.2=10.9.0.128/25 -o local=198.51.100.1 ov
    rnet_on h2 network create -d overlay --subnet 10.9.0.0/24 --ip-range 10.9.0.128/25 \
        -o peers=198.51.100.1=10.9.0.0/25 -o local=198.51.100.2 ov
fi

say 'A container on each, the second one with a server and a published port'
rnet_on h1 network connect ov c1
rnet_on h2 network connect -p 8080:80 ov c2
address=$(ip -n c2 -4 -o address show dev eth0 | sed 's/.* inet \([0-9.]*\).*/\1/')
inside c2 python3 -m http.server 80 --directory /usr/share >/dev/null 2>&1 &
until inside c2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/80' 2>/dev/null; do :; done

ask() { inside "$1" bash -c "exec 3<>/dev/tcp/$2/$3; printf 'HEAD / HTTP/1.0\r\n\r\n' >&3; head -1 <&3"; }
say "From the container on the first host to $address on the second"
until ask c1 "$address" 80 2>/dev/null; do :; done
say 'From outside to the published port'
exec 3<>/dev/tcp/198.51.100.2/8080
printf 'HEAD / HTTP/1.0\r\n\r\n' >&3
head -1 <&3
say 'What is recorded is what the kernels have'
rnet_on h1 check
rnet_on h2 check
say 'Done; all of it goes now'
