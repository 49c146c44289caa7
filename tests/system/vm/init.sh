#!/bin/busybox sh
# PID 1 in the initramfs: puts a writable layer over the host's files and goes there. run.py fills in the @WORDS@.
export PATH=/bin
busybox mkdir /proc; busybox mount -t proc proc /proc; busybox --install -s /bin
die() { echo "<2>vm: $*" >/dev/kmsg; reboot -f; }

mkdir -p /sys /dev /host /disk /new
mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in @MODULES@; do insmod "/modules/$module" || die "cannot load $module"; done
mount -t virtiofs root /host || die "no host files"
mount -t ext4 /dev/vda /disk || die "no disk"
mkdir /disk/scratch /disk/upper /disk/work; chmod 1777 /disk/scratch
# The upper layer is on the disk: tmpfs pages would be charged to the memory cgroup of whoever writes.
# redirect_dir: else renaming a folder of the host answers EXDEV; xino: one device number for the whole tree.
mount -t overlay -o lowerdir=/host,upperdir=/disk/upper,workdir=/disk/work,redirect_dir=on,xino=on root /new ||
    die "no overlay"
for shared in @SHARED@; do mount --bind "/host$shared" "/new$shared" || die "cannot share $shared"; done

cd /new
rm -f .dockerenv # systemd would think that it is in a container
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t devtmpfs dev dev
mkdir -p dev/pts dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts dev/pts; mount -t tmpfs -o mode=1777 shm dev/shm
ln -s /proc/self/fd dev/fd; ln -s /proc/self/fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 run run; mkdir -p run/vm run/lock run/scratch
mount --bind /disk/scratch run/scratch
cp /bin/busybox /main.sh /command run/vm/
for port in /sys/class/virtio-ports/*; do read -r name <"$port/name" && ln -s "/dev/${port##*/}" "run/vm/$name"; done
hostname vm; ip link set lo up

if [ -z "@SYSTEMD@" ]; then
    umount /proc /sys
    exec switch_root /new /run/vm/busybox sh /run/vm/main.sh
fi
units=run/systemd/system; mkdir -p $units; cp /vm.service $units/
# D-Bus without the rest of sysinit.target, which is slow here and holds what must not run: systemd-tmpfiles-setup
# would empty /tmp (a checkout may be there), udev would load every driver.
for unit in dbus.socket dbus.service; do
    mkdir $units/$unit.d; printf '[Unit]\nDefaultDependencies=no\n' >$units/$unit.d/vm.conf
done
for unit in lib/systemd/system/sysinit.target.wants/* etc/systemd/system/*.target.wants/*; do
    case ${unit##*/} in systemd-journald.service | '*') ;; *) ln -sf /dev/null "$units/${unit##*/}" ;; esac
done
ln -sf /dev/null $units/timers.target; ln -sf /dev/null $units/systemd-update-done.service
umount /proc /sys
exec switch_root /new /lib/systemd/systemd --unit=vm.service --show-status=no --log-target=kmsg
