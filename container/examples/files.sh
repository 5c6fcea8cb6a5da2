#!/bin/sh
# Way 1: everything is in the image. Options of Apptainer's may follow, such as --nv or --contain.
exec apptainer run "$@" files.sif
