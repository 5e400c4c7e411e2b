#!/bin/sh
# Sent by playbooks/tour.yml to every host, run there by the line above, and removed again.
# Arguments come as separate words, whatever they hold.
set -eu
echo "script: $(uname -s) on $(uname -m)"
for label in "$@"; do
    printf 'label: %s\n' "$label"
done
