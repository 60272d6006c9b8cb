#!/bin/sh
# A repository of tiny RPMs named as what roles install of RHEL, with dependencies as these have them.
# system.sh FOLDER
set -eu
folder=$1
mkdir -p "$folder/repo"
cd "$folder"
package() { cat >one.spec <<SPEC
Name: $1
Epoch: $2
Version: $3
Release: 1.el9
Summary: $1 <of> "a & b"
License: none
BuildArch: noarch
${4:-}
%description
$1
%install
mkdir -p %{buildroot}/usr/bin
touch %{buildroot}/usr/bin/$1
%files
/usr/bin/$1
SPEC
rpmbuild -bb --quiet --define "_topdir $folder/build" --define "_rpmdir $folder/repo" one.spec; }
package glibc 0 2.34
package ca-certificates 0 2024
package curl 0 7.76 "Requires: glibc >= 2.34"
package numactl-libs 0 2.0 "Requires: glibc"
package gcc-c++ 0 11.5 "Requires: glibc-devel(x86-64)
Requires: /usr/bin/cpp"
package cpp 0 11.5
package glibc-devel 0 2.34 "Provides: glibc-devel(x86-64)
Requires: glibc = 2.34"
package openssl 1 3.0.7
package zstd 0 1.5
package nginx 1 1.20 "Requires: nginx-core = 1:1.20
Recommends: weakling"
package nginx-core 1 1.20
package weakling 0 1
package nftables 1 1.0
createrepo_c --quiet repo
