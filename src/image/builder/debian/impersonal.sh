set -e
cd "$1"
rm -f etc/ssh/ssh_host_* etc/apt/apt.conf.d/99mmdebstrap etc/resolv.conf var/lib/dbus/machine-id
: > etc/machine-id
: > etc/resolv.conf
: > etc/fstab
echo debian > etc/hostname
printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n' > etc/hosts
mkdir -p etc/default && echo LANG=C.UTF-8 > etc/default/locale
sed -i 's/^root:[^:]*:/root:*:/' etc/shadow
sed -i '/force-unsafe-io/d' etc/dpkg/dpkg.cfg.d/99mmdebstrap
rm -f etc/systemd/system/*.wants/systemd-networkd* etc/systemd/system/*.wants/e2scrub* etc/systemd/system/timers.target.wants/*
rm -rf var/cache/apt/*.bin var/cache/debconf/*-old var/lib/dpkg/*-old var/log/apt var/log/*.log
