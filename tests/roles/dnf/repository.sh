#!/bin/sh
# A repository of tiny RPMs with the names, epochs, dependencies and module streams of NVIDIA's for RHEL 9.
# repository.sh FOLDER
set -eu
folder=$1
mkdir -p "$folder/repo"
cd "$folder"

package() { # NAME EPOCH VERSION [SPEC LINES]
    cat >one.spec <<SPEC
Name: $1
Epoch: $2
Version: $3
Release: 1.el9
Summary: $1
License: none
BuildArch: noarch
${4:-}
%description
$1
%files
SPEC
    rpmbuild -bb --quiet --define "_topdir $folder/build" --define "_rpmdir $folder/repo" one.spec
}
for release in 580.95.05 595.58.03 595.71.05; do
    package nvidia-driver-cuda 3 "$release" "Requires: nvidia-kmod = 3:$release
Requires: nvidia-kmod-common = 3:$release"
    package nvidia-kmod-common 3 "$release"
    package nvidia-persistenced 3 "$release"
    package kmod-nvidia-open-dkms 3 "$release" "Provides: nvidia-kmod = 3:$release
Conflicts: kmod-nvidia-latest-dkms
Requires: dkms"
    package kmod-nvidia-latest-dkms 3 "$release" "Provides: nvidia-kmod = 3:$release
Conflicts: kmod-nvidia-open-dkms
Requires: dkms"
    package nvidia-fabricmanager 0 "$release"
    package libnvidia-nscq 0 "$release"
done
package nvlsm 0 2025.06.1
package datacenter-gpu-manager-4-core 1 4.4.1
package dkms 0 3.2.1
package python3-dnf-plugin-versionlock 0 4.3.0 "Provides: dnf-command(versionlock)"
package kernel-devel 0 5.14.0 ""
package nvidia-needs-more 0 1.0 "Requires: gcc-of-another-world"
export GNUPGHOME=$folder/gnupg; mkdir -p -m 700 "$GNUPGHOME"
[ -s repo/key.pub ] || {
    gpg --batch --quiet --passphrase '' --quick-generate-key 'nobody <nobody@example.org>' rsa2048 sign never
    gpg --armor --export >repo/key.pub
}
gpg --with-colons --list-keys | sed -n 's/^fpr:*\([0-9A-F]*\):.*/\1/p' | head -n 1 >fingerprint
rpmsign --addsign --define '_gpg_name nobody' --define "__gpg /usr/bin/gpg" $(find repo -name '*.rpm') >/dev/null
createrepo_c --quiet repo
stream() { # STREAM RELEASE NAME...
    name=$1 release=$2; shift 2
    cat <<YAML
---
document: modulemd
version: 2
data:
  name: nvidia-driver
  stream: "$name"
  version: 1
  context: c0ffee0
  arch: x86_64
  summary: Nvidia driver for $name branch
  description: >-
    Nvidia driver for $name branch
  license: {module: [MIT]}
  dependencies: [{}]
  profiles:
    default: {rpms: [nvidia-driver-cuda]}
  artifacts:
    rpms:
YAML
    for rpm in "$@"; do
        for one in $release; do echo "    - $rpm-3:$one-1.el9.noarch"; done
    done
}
{
    for branch in 580 595; do
        case $branch in 580) of=580.95.05 ;; *) of='595.58.03 595.71.05' ;; esac
        stream $branch-open "$of" kmod-nvidia-open-dkms nvidia-driver-cuda nvidia-kmod-common nvidia-persistenced
        stream $branch-dkms "$of" kmod-nvidia-latest-dkms nvidia-driver-cuda nvidia-kmod-common nvidia-persistenced
    done
} >modules.yaml
modifyrepo_c --mdtype=modules modules.yaml repo/repodata >/dev/null
mkdir -p /etc/dnf/vars /etc/yum.repos.d
echo 9 >/etc/dnf/vars/releasever
rm -f /etc/dnf/plugins/local.conf /usr/lib/python3/dist-packages/dnf-plugins/local.py
grep -q platform:el9 /etc/dnf/dnf.conf || echo module_platform_id=platform:el9 >>/etc/dnf/dnf.conf
