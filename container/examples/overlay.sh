#!/bin/sh
# Way 3: a file with a filesystem in it, laid over the image. One process at a time.
# Options of Apptainer's may follow: with `--no-mount tmp`, /tmp is the image's, so the kernels are kept in the file, too.
set -eu
overlay=my_overlay.img

if [ ! -e "$overlay" ]; then
    # In the filesystem that mkfs.ext3 makes, Apptainer cannot make its two folders without privileges: "failed to
    # create .../upper directory: ... permission denied". Giving its root directory an owner (-E root_owner) does not
    # help. So the folders are made outside, and mkfs.ext3 copies them in, which needs e2fsprogs 1.43 or newer.
    # `apptainer overlay create --size 512 my_overlay.img` does the same in one line.
    PATH=$PATH:/usr/sbin:/sbin
    layers=$(mktemp -d)
    mkdir "$layers/upper" "$layers/work"
    truncate -s 512M "$overlay.new"
    mkfs.ext3 -q -d "$layers" "$overlay.new"
    rm -r "$layers"
    mv "$overlay.new" "$overlay"
fi

code=0
apptainer exec --overlay "$overlay" "$@" overlay.sif hypothetical-gpu-lib || code=$?

if [ "$code" = 255 ] && apptainer exec --overlay "$overlay" overlay.sif true 2>&1 | grep -q 'in use .*by another'; then
    cat >&2 <<END
$0: another process uses $overlay, and an overlay image serves one at a time. Do one of these:
  - leave it out: sif-writable finds a place for what the image cannot take, for any number of processes
        apptainer exec overlay.sif hypothetical-gpu-lib
  - share a folder instead: ./bind.sh
  - give each job a file of its own, copied while nobody uses this one
        cp --sparse=always $overlay \$SLURM_JOB_ID.img
  - if no process of yours runs any more, one was killed, and its helpers hold the file; end those that are orphans
        pkill -u $(id -u) -P 1 'fuse2fs|fuse-overlayfs|squashfuse'
END
fi
exit "$code"
