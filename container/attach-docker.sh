#!/bin/sh
# Run an image that nobody can rebuild in Docker or Podman, with a read-only root: sif_writable comes from the host.
#
#     sif-writable attach --dir "$HOME/sif-writable-attached"       # once
#     attach-docker.sh IMAGE python my_script.py
#
# To fill in: IMAGE and the command; DOCKER=podman in the environment for Podman, ATTACHED for another folder.
set -eu
: "${ATTACHED:=$HOME/sif-writable-attached}"
: "${DOCKER:=docker}"
image=${1:?names the image to run}
shift
if [ ! -d "$ATTACHED/current" ]; then # Docker would make an empty folder there, and nothing would be attached
    echo "$ATTACHED/current is not there. Remedy: sif-writable attach --dir \"$ATTACHED\"" >&2
    exit 2
fi

# What the image says of PYTHONPATH stays, behind ours.
own=$("$DOCKER" image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$image" | sed -n 's/^PYTHONPATH=//p')
exec "$DOCKER" run --rm --read-only --tmpfs /tmp:exec --volume "$ATTACHED/current:/sif-writable-attached:ro" \
    --env "PYTHONPATH=/sif-writable-attached/sif_writable/hook${own:+:$own}" "$image" "$@"
