"""What of the GPU check needs neither a container nor a C compiler."""
