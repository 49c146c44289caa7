#!/usr/bin/env bash
# Fetches Debian's cloud kernel for the VM into a folder. It is not installed: that would touch the boot loader.
# Usage: tests/system/vm/kernel.sh FOLDER
set -euo pipefail
rm -rf "$1"
mkdir -p "$1"
cd "$1"
apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || apt-get update -qq
package=$(apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-\)/\1/p')
apt-get download -qq "$package" 2>/dev/null
dpkg-deb --extract ./*.deb .
rm ./*.deb
mv boot/vmlinuz-* vmlinuz
version=$(ls lib/modules)
depmod --basedir . "$version"
mv "lib/modules/$version" modules
rm -r boot lib usr
