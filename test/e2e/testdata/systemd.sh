# Starts systemd with nothing but the service of docs/quickstart.md, and types the commands that are there.
#
#   systemd.sh TOP PROGRAMS COMMANDS
#
# Run as process 1 of new pid, mount, network and uts namespaces, in a cgroup of its own: what it mounts and starts nobody else
# sees, and all of it ends with it. TOP is a checkout, PROGRAMS the directory of token-projector and fake-apiserver, COMMANDS a
# file with one a line.
set -euo pipefail
[[ ${INSIDE:-} ]] || INSIDE=1 exec unshare --cgroup bash "$0" "$@"
PATH=$PATH:/usr/sbin:/sbin
top=$1 programs=$2 commands=$3

mount --make-rprivate /
mount -t proc none /proc
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /mnt # what is written to these directories is in memory
for dir in /etc /usr/local/bin; do
	mkdir -p "/mnt$dir/upper" "/mnt$dir/work"
	mount -t overlay none -o "lowerdir=$dir,upperdir=/mnt$dir/upper,workdir=/mnt$dir/work" "$dir"
done
systemd=/usr/lib/systemd
[[ -x $systemd/systemd ]] || systemd=/lib/systemd
mkdir -p /etc/systemd
for dir in /run $systemd/system $systemd/system-generators /etc/systemd; do # nothing of the machine's is to be started
	mount -t tmpfs none "$dir"
done
mkdir /etc/systemd/system
for unit in sysinit basic shutdown network-online multi-user; do
	printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' "$unit" >"$systemd/system/$unit.target"
done
echo node-1 >/etc/hostname

fresh() { bin/token-projector inspect -o json | grep -c '"state": "fresh"'; }
ready() { until [[ $(fresh) -ge 4 ]]; do sleep 0.05; done 2>/dev/null; }

beside() {
	cd /mnt
	ln -s "$top/deploy" deploy
	mkdir bin
	cp "$programs/token-projector" "$programs/fake-apiserver" bin/
	bin/fake-apiserver --demo --node node-1 --kubeconfig-out bin/kubeconfig >/dev/null &
	until [[ -s bin/kubeconfig && -S /run/systemd/private ]]; do sleep 0.05; done
	bash -euo pipefail "$commands"
	ready
	local token pid
	token=$(sha256sum /run/token-projector/pods/*/volumes/kubernetes.io~projected/vault-token/vault-token)
	systemctl restart token-projector
	until curl -fs -o /dev/null http://127.0.0.1:9478/readyz; do sleep 0.05; done
	ready
	sha256sum --quiet -c <<<"$token"
	systemctl is-enabled token-projector
	pid=$(systemctl show --property MainPID --value token-projector)
	grep -E '^(CapEff|NoNewPrivs|Seccomp):' "/proc/$pid/status"
	awk '$5 == "/" || $5 == "/run/token-projector" { print "mount", $5, substr($6, 1, 2) }' "/proc/$pid/mountinfo"
	systemctl stop token-projector
	sha256sum --quiet -c <<<"$token"
}
(set +e; (set -e; ip link set lo up; beside); echo "ended: $?") &
container=token-projector exec $systemd/systemd --system --unit=multi-user.target --log-target=null
