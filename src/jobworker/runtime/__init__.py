"""What runs beside the daemon: spawner and supervisors. Standard library only, since each job pays for every import."""
