"""What goes into the archive of `clusterctl report`, and what must not."""
