#!/bin/bash
# sif_writable in every container that Enroot starts on this node, pyxis' too. For administrators:
#
#     sif-writable attach --dir /opt/sif-writable --site
#     install -m 755 enroot-hook.sh /etc/enroot/hooks.d/60-sif-writable.sh
#
# To fill in: /opt/sif-writable in both lines, if it shall lie elsewhere, and below in SIF_WRITABLE_ATTACHED.
# SIF_WRITABLE=off switches it off for a job. Enroot runs this before it changes to the container's root.
set -euo pipefail
folder=${SIF_WRITABLE_ATTACHED:-/opt/sif-writable}/current

if [ "${SIF_WRITABLE:-}" = off ] || [ ! -d "$folder" ]; then
    exit 0
fi

# What the image and the hooks before this one say of PYTHONPATH stays, behind ours.
path=/sif-writable-attached/sif_writable/hook
for file in "${ENROOT_ROOTFS}/etc/environment" "${ENROOT_ENVIRON}"; do
    if [ -r "$file" ]; then
        while IFS= read -r line; do
            case "$line" in
                PYTHONPATH=/sif-writable-attached/*) ;;
                PYTHONPATH=?*) path=/sif-writable-attached/sif_writable/hook:${line#PYTHONPATH=} ;;
            esac
        done < "$file"
    fi
done
printf '%s\n' "PYTHONPATH=$path" >> "${ENROOT_ENVIRON}"
printf '%s %s x-create=dir,bind,ro,nosuid,nodev,private\n' "$folder" /sif-writable-attached >> "${ENROOT_MOUNTS}"
