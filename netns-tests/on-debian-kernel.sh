#!/usr/bin/env bash
# The tests of netns-tests/ on Debian's own kernel, in an emulated machine that sees this one's files and changes none:
# for what this machine's kernel may lack, as WireGuard and tagged VLANs. By hand, and slow: ten times and more.
#
#   netns-tests/on-debian-kernel.sh overlay::encrypted
#
# Needs root and apt; `cargo test --test netns --no-run` comes first. Exits with what the tests exit with.
set -euo pipefail
filter=${1:-}
here=$(cd "$(dirname "$0")/.." && pwd)
tests=$(find "$here/target/debug/deps" -name 'netns-*' -executable -type f -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
[ -n "$tests" ] || { echo 'cargo test --test netns --no-run comes first' >&2; exit 2; }
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
    qemu-system-x86 kmod cpio busybox-static iproute2 nftables etcd-server >/dev/null

work=${TMPDIR:-/tmp}/rnet-debian-kernel
mkdir -p "$work" && cd "$work"
package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')
if [ ! -e "kernel/boot/vmlinuz-${package#linux-image-}" ]; then
    rm -rf kernel ./*.deb
    apt-get download "$package" >/dev/null
    dpkg -x linux-image-*.deb kernel
fi
version=$(ls kernel/lib/modules)
depmod -b kernel "$version"

# What is loaded before there is a file system: what reads it. The rest is loaded from it.
rm -rf first && mkdir -p first/{bin,modules,proc,sys,dev,low,up,new}
cp /bin/busybox first/bin/
number=10
for module in $(for name in 9p 9pnet_virtio virtio_pci overlay; do
    modprobe -S "$version" -d "$work/kernel" --show-depends "$name"
done | awk '/insmod/ && !seen[$2]++ { print $2 }'); do
    cp "$module" "first/modules/$number-$(basename "$module")"
    number=$((number + 1))
done
wanted=$(cd "kernel/lib/modules/$version" && find . -name 'nft_*.ko' -o -name 'nf_nat.ko' -o -name 'nf_tables.ko' \
    -o -name 'nf_conntrack.ko' -o -name 'nf_conntrack_netlink.ko' -o -name 'nf_socket_*.ko' | xargs -n1 basename -s .ko)
cat >first/init <<EOF
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod \$module; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000 root /low
mount -t tmpfs -o size=3g up /up; mkdir /up/upper /up/work
mount -t overlay -o lowerdir=/low,upperdir=/up/upper,workdir=/up/work root /new
mkdir -p /new/usr/lib/modules; mount --bind /low$work/kernel/lib/modules /new/usr/lib/modules
mount -t proc proc /new/proc; mount -t sysfs sys /new/sys; mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm; mount -t devpts pts /new/dev/pts; mount -t tmpfs shm /new/dev/shm
mount -t tmpfs run /new/run; mount -t tmpfs -o mode=1777 tmp /new/tmp; mount -t cgroup2 cgroup /new/sys/fs/cgroup
ip link set lo up
chroot /new /bin/bash -c 'export PATH=/usr/sbin:/usr/bin HOME=/root
for module in $(echo $wanted) veth bridge br_netfilter vxlan tun wireguard dummy 8021q macvlan ipvlan ifb; do
    modprobe \$module 2>/dev/null
done
sysctl -qw net.bridge.bridge-nf-call-iptables=0
cd $here && $tests --test-threads 1 $filter'
echo "ended with \$?"
poweroff -f
EOF
chmod +x first/init
(cd first && find . | cpio -o -H newc 2>/dev/null | gzip -1) >initrd
qemu-system-x86_64 -accel tcg,thread=single -cpu Nehalem -smp 1 -m 6G -nographic -no-reboot -net none \
    -kernel "kernel/boot/vmlinuz-$version" -initrd initrd -append 'console=ttyS0 quiet panic=1' \
    -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
    -device virtio-9p-pci,fsdev=root,mount_tag=root </dev/null | tee said
exit "$(sed -n 's/^ended with \([0-9]*\).*/\1/p' said | tail -1 | grep . || echo 1)"
