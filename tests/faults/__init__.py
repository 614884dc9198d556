"""What clusters do to a workflow: jobs killed, disks full, files damaged."""
