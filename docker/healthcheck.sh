#!/usr/bin/env bash
# Healthy: the server answers and its copymatch library loads.
set -euo pipefail
[ "$(/usr/lib/postgresql/15/bin/psql -XAtq -U postgres -d copymatch -c "SELECT '[3,4]'::vector <-> '[0,0]'")" = 5 ]
