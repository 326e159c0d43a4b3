#!/bin/sh
# Makes a minimal Debian in ROOTFS. Runs in its own mount namespace, so that what it mounts goes with it.
# Usage: make-rootfs.sh ROOTFS OVERLAY ARCHIVES MIRROR (OVERLAY: files laid over the new system).
set -eu
rootfs=$1 overlay=$2 archives=$3 mirror=$4
here=$(dirname "$0")

rm -rf "$rootfs"
mkdir -p "$rootfs" "$archives"
cp -R "$here/files/." "$rootfs"
debootstrap --variant=minbase --include=ca-certificates --cache-dir="$archives" bookworm "$rootfs" "$mirror" >&2

cp -R "$overlay/." "$rootfs"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
chroot "$rootfs" update-ca-certificates >&2
chroot "$rootfs" apt-get -q update >&2
chroot "$rootfs" apt-get -qy upgrade >&2

chroot "$rootfs" apt-get clean
rm -rf "$rootfs"/var/lib/apt/lists/* "$rootfs"/var/cache/debconf/*-old "$rootfs"/var/log/*.log "$rootfs"/var/log/apt
rm -f "$rootfs/etc/resolv.conf" "$rootfs/etc/hostname" "$rootfs/etc/machine-id"
find "$rootfs/usr/share/doc" -type f ! -name copyright -delete
find "$rootfs/usr/share/man" "$rootfs/usr/share/info" "$rootfs/usr/share/locale" \
    -type f ! -name locale.alias -delete
tar --numeric-owner --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -C "$rootfs" -c .
rm -rf "$rootfs"
