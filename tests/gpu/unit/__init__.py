"""The parts of the GPU check that need neither a container nor a C compiler."""
