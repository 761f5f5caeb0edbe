#!/usr/bin/env bash
# The server stage: PostgreSQL out of Debian's packages, without a cluster; the extension's files come after it.
# Both the Dockerfile and scripts/bare-root.sh run it.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
mkdir -p /etc/postgresql-common
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold postgresql-15
rm -rf /var/lib/apt/lists/*
install -d -o postgres -g postgres -m 700 /var/lib/copymatch /var/lib/copymatch/data
install -d -o postgres -g postgres -m 2775 /var/run/postgresql
