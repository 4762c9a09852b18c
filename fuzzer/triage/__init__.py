"""What people do with findings: show them, see them again."""
