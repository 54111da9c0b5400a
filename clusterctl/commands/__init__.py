"""The verbs of clusterctl, one module each; every one only asks, prints, and chooses the exit status."""
